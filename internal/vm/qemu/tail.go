package qemu

import (
	"io"
	"strings"
	"sync"
)

// A tail keeps the last part of what was written.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

// tailSize holds a kernel's panic with its register dump.
const tailSize = 16 << 10

func newTail() *tail { return &tail{} }

// maxConsole is what a guest may write into its console log: a kernel's whole
// log many times over, and no way to fill the host's disk.
const maxConsole = 4 << 20

// drain reads r to its end, so that the writer never blocks, and copies the
// first maxConsole bytes to also, if there is one, until that fails.
func (t *tail) drain(r io.Reader, also io.Writer) {
	b := make([]byte, 4096)
	left := maxConsole
	for {
		n, err := r.Read(b)
		t.mu.Lock()
		t.buf = append(t.buf, b[:n]...)
		if over := len(t.buf) - tailSize; over > 0 {
			t.buf = append(t.buf[:0], t.buf[over:]...)
		}
		t.mu.Unlock()
		if n = min(n, left); also != nil && n > 0 {
			if _, err := also.Write(b[:n]); err != nil {
				also = nil
			}
			left -= n
		}
		if err != nil {
			return
		}
	}
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}

// usual is what QEMU says in every cage: there is no /dev/null.
const usual = "OFD lock probing"

// lastLine is the last line that says something, without control characters.
func lastLine(s string) string {
	last := ""
	for line := range strings.Lines(s) {
		if strings.TrimSpace(line) != "" && !strings.Contains(line, usual) {
			last = line
		}
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.TrimSpace(last))
}
