package term

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/creack/pty"
)

func TestEscape(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"plain", "GET /a b ü 漢", "GET /a b ü 漢"},
		{"terminal escape", "\x1b]0;owned\x07", `\x1b]0;owned\a`},
		{"C1 control", "a\u009bb", `a\u009bb`},
		{"new line", "a\r\nb", `a\r\nb`},
		{"line separator", "a\u2028b", `a\u2028b`},
		{"right-to-left override", "a\u202eb", `a\u202eb`},
		{"broken UTF-8", "a\xffb", `a\xffb`},
		{"replacement character itself", "a\ufffdb", "a\ufffdb"},
		{"NUL", "\x00", `\x00`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := Escape(tt.in); got != tt.want {
				t.Errorf("Escape(%q) = %q, want %q", tt.in, got, tt.want)
			}
		})
	}
}

func FuzzEscape(f *testing.F) {
	f.Add("a\x1b[2J\xff")
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range Escape(s) {
			if unsafeRune(r) {
				t.Fatalf("Escape(%q) holds %q", s, r)
			}
		}
	})
}

func TestError(t *testing.T) {
	var b bytes.Buffer
	o := &Output{w: &b, now: time.Now}
	o.Error(fmt.Errorf("run: %w", WithHint(errors.New("no \x1b image"), "import %s", "one")))
	if want := "cutout: run: no \\x1b image\nhint: import one\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
	if WithHint(nil, "x") != nil {
		t.Error("a nil error became one")
	}
}

// clock is a hand-moved time.
type clock struct{ t time.Time }

func (c *clock) now() time.Time          { return c.t }
func (c *clock) advance(d time.Duration) { c.t = c.t.Add(d) }

func TestProgressOnTerminal(t *testing.T) {
	var b bytes.Buffer
	c := &clock{time.Unix(1000, 0)}
	o := &Output{w: &b, tty: true, now: c.now}
	o.Progress("unpack", 1, 10)
	c.advance(500 * time.Millisecond)
	o.Progress("unpack", 2, 10)
	if b.Len() != 0 {
		t.Fatalf("half a second is not worth a line, got %q", b.String())
	}
	c.advance(time.Second)
	o.Progress("unpack", 2_500_000, 10_000_000)
	o.Printf("done")
	if want := "\r\x1b[Kunpack  2.5 MB of 10.0 MB (25 %)\r\x1b[Kdone\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

func TestProgressElsewhere(t *testing.T) {
	var b bytes.Buffer
	c := &clock{time.Unix(1000, 0)}
	o := &Output{w: &b, now: c.now}
	for _, stage := range []string{"fetch", "unpack"} {
		for range 50 {
			o.Progress(stage, 1, 10)
			c.advance(100 * time.Millisecond)
		}
	}
	o.Progress("", 0, 0)
	if want := "cutout: fetch\ncutout: unpack\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

func TestRawMode(t *testing.T) {
	ptmx, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer ptmx.Close()
	defer tty.Close()
	if err := pty.Setsize(ptmx, &pty.Winsize{Rows: 33, Cols: 101}); err != nil {
		t.Fatal(err)
	}
	if got := SizeOf(tty); got != (Size{33, 101}) {
		t.Errorf("size %+v", got)
	}
	var b bytes.Buffer
	o := &Output{w: &b, now: time.Now}
	restore, err := o.Raw(tty)
	if err != nil {
		t.Fatal(err)
	}
	o.Printf("in raw mode")
	restore()
	restore()
	o.Printf("out of it")
	if want := "in raw mode\r\nout of it\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 3_400_000: "3.4 MB", 5_000_000_000: "5.0 GB"} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %q, want %q", n, got, want)
		}
	}
}
