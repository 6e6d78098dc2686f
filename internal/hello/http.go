package hello

import (
	"bytes"
	"slices"
	"strings"

	"github.com/cutoutdev/cutout/internal/hostname"
)

const (
	// maxWord and maxLine bound what can still become a request line: longer
	// than any registered method, and as long as the re-framer's limit.
	maxWord = 32
	maxLine = 16 << 10
	// maxHead is how much of a head is searched for names.
	maxHead = 64 << 10
)

// text tells HTTP from other protocols. It is lenient on purpose: what some
// server might accept as HTTP must reach the strict parser and be refused
// there, with a reason, instead of passing by as "not HTTP".
func (p *peeker) text() Hello {
	for {
		switch isHTTP, decided := requestLine(p.buf); {
		case decided && isHTTP:
			p.restOfHead()
			return Hello{Kind: HTTP, Hosts: hosts(p.buf)}
		case decided:
			return Hello{Kind: Other}
		}
		if !p.more(quiet) {
			return Hello{Kind: Other}
		}
	}
}

// requestLine reports whether b begins with something like a request line,
// and whether that can be told already.
func requestLine(b []byte) (isHTTP, decided bool) {
	b = bytes.TrimLeft(b, "\r\n \t")
	if len(b) == 0 {
		return false, false
	}
	end := bytes.IndexAny(b, " \t\r\n")
	word := b
	if end >= 0 {
		word = b[:end]
	}
	if len(word) > maxWord || slices.ContainsFunc(word, func(c byte) bool { return !tokenByte(c) }) {
		return false, true
	}
	if end < 0 {
		return false, false
	}
	line, whole := b, false
	if i := bytes.IndexAny(b, "\r\n"); i >= 0 {
		line, whole = b[:i], true
	}
	if len(line) > maxLine {
		return false, true
	}
	if namesVersion(line) {
		return true, true
	}
	if !whole {
		return false, false
	}
	return simpleRequest(line), true
}

// namesVersion reports whether line contains "http/" in any case.
func namesVersion(line []byte) bool {
	for i := 4; i < len(line); i++ {
		if line[i] == '/' && bytes.EqualFold(line[i-4:i], []byte("http")) {
			return true
		}
	}
	return false
}

// simpleRequest recognises HTTP/0.9, "GET /path". Only with a target that
// looks like one: Redis and memcached have a GET too.
func simpleRequest(line []byte) bool {
	words := strings.Fields(strings.ToLower(string(line)))
	return len(words) >= 2 && methods[words[0]] &&
		(words[1][0] == '/' || strings.HasPrefix(words[1], "http:") || strings.HasPrefix(words[1], "https:"))
}

var methods = map[string]bool{
	"get": true, "head": true, "post": true, "put": true, "delete": true,
	"options": true, "patch": true, "trace": true, "track": true, "connect": true,
}

// tokenByte is tchar, RFC 9110 §5.6.2.
func tokenByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// restOfHead reads until a blank line, as long as bytes keep coming.
func (p *peeker) restOfHead() {
	start := len(p.buf) - len(bytes.TrimLeft(p.buf, "\r\n \t"))
	for from := start; len(p.buf) < maxHead && blankLine(p.buf[from:]) < 0; {
		from = max(start, len(p.buf)-3)
		if !p.more(quiet) {
			return
		}
	}
}

// blankLine returns where the first blank line of b begins, or -1.
func blankLine(b []byte) int {
	first := -1
	for _, end := range []string{"\n\r\n", "\n\n", "\r\r"} {
		if i := bytes.Index(b, []byte(end)); i >= 0 && (first < 0 || i < first) {
			first = i
		}
	}
	return first
}

// hosts collects the names in the request line and in anything like a Host
// field, whatever its line ends, spaces and folds are.
func hosts(b []byte) []hostname.Name {
	b = bytes.TrimLeft(b[:min(len(b), maxHead)], "\r\n \t")
	if end := blankLine(b); end >= 0 {
		b = b[:end]
	}
	lines := strings.FieldsFunc(string(b), func(r rune) bool { return r == '\r' || r == '\n' })
	var out []hostname.Name
	add := func(s string) {
		s = s[strings.LastIndexByte(s, '@')+1:]
		if a, err := hostname.ParseAuthority(strings.TrimSpace(s)); err == nil && !slices.Contains(out, a.Host) {
			out = append(out, a.Host)
		}
	}
	for i, line := range lines {
		if i == 0 {
			add(targetAuthority(line))
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || !strings.EqualFold(strings.TrimSpace(name), "host") {
			continue
		}
		add(value)
		if strings.TrimSpace(value) == "" && i+1 < len(lines) {
			add(lines[i+1]) // folded
		}
	}
	return out
}

// targetAuthority returns what stands for the authority in the second word
// of a request line, in absolute-form or CONNECT's form.
func targetAuthority(line string) string {
	words := strings.Fields(line)
	if len(words) < 2 {
		return ""
	}
	target := words[1]
	if _, rest, ok := strings.Cut(target, "://"); ok {
		target = strings.TrimLeft(rest, "/")
	}
	if i := strings.IndexAny(target, "/?#"); i >= 0 {
		return target[:i]
	}
	return target
}
