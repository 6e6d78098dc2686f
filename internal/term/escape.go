package term

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Escape returns s with everything that could act on a terminal or a log
// reader written out: control characters, escape sequences, line separators,
// text-direction overrides and broken UTF-8. Text that a guest chose goes
// through it wherever it is printed.
func Escape(s string) string {
	if !strings.ContainsFunc(s, unsafeRune) && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1, unsafeRune(r):
			q := strconv.QuoteToASCII(s[:n])
			b.WriteString(q[1 : len(q)-1])
		default:
			b.WriteString(s[:n])
		}
		s = s[n:]
	}
	return b.String()
}

// unsafeRune is true for what is not a visible character or a space. That
// includes the format characters (Cf), among them the bidirectional
// overrides that make text read differently from what it is.
func unsafeRune(r rune) bool { return !unicode.IsPrint(r) }
