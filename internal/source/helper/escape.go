package helper

import (
	"io"
	"strings"

	"github.com/cutoutdev/cutout/internal/term"
)

// An escaper shows what commands say, made harmless for a terminal.
type escaper struct{ w io.Writer }

func (e escaper) Write(p []byte) (int, error) {
	var b strings.Builder
	for line := range strings.Lines(string(p)) {
		text, ended := strings.CutSuffix(line, "\n")
		b.WriteString(term.Escape(strings.TrimSuffix(text, "\r")))
		if ended {
			b.WriteByte('\n')
		}
	}
	if _, err := io.WriteString(e.w, b.String()); err != nil {
		return 0, err
	}
	return len(p), nil
}
