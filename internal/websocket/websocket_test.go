package websocket

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// A part is what a side has said: a message or a control frame.
type part struct {
	Op   Opcode
	Text string
}

// wire is one frame; length < 0 means that of payload.
func wire(first byte, masked bool, payload string) string {
	h := header{fin: first&0x80 != 0, op: Opcode(first & 0xf), length: uint64(len(payload)), masked: masked, key: [4]byte{0xa1, 0, 0x5c, 0xff}}
	b := h.append(nil)
	b[0] |= first & 0x70
	at := len(b)
	b = append(b, payload...)
	if masked {
		xor(b[at:], h.key, 0)
	}
	return string(b)
}

// readAll reads all that is said and the error that ends it.
func readAll(src io.Reader, masked bool) (parts []part, err error) {
	r := NewReader(src, masked)
	r.Control = func(op Opcode, p []byte) error {
		parts = append(parts, part{op, string(p)})
		return nil
	}
	for {
		op, err := r.Next()
		if err != nil {
			return parts, err
		}
		payload, err := io.ReadAll(r)
		if err != nil {
			return parts, err
		}
		parts = append(parts, part{op, string(payload)})
	}
}

// splits are ways for src to come in.
func splits(src string) map[string]io.Reader {
	return map[string]io.Reader{
		"whole": strings.NewReader(src),
		"bytes": iotest.OneByteReader(strings.NewReader(src)),
		"half":  iotest.HalfReader(strings.NewReader(src)),
		"error": iotest.DataErrReader(strings.NewReader(src)),
	}
}

func TestReader(t *testing.T) {
	long := strings.Repeat("0123456789", 20_000)
	frames := []struct {
		first   byte
		payload string
	}{
		{0x81, "hello"},
		{0x01, "fra"},
		{0x89, "ping"},
		{0x00, "gm"},
		{0x8a, ""},
		{0x80, "ented"},
		{0x82, long},
		{0x81, ""},
		{0x01, ""},
		{0x80, ""},
		{0x82, long[:126]},
		{0x82, long[:65535]},
		{0x82, long[:65536]},
		{0x01, "\xe2"},
		{0x00, "\x82"},
		{0x80, "\xac"},
		{0x88, "\x03\xe8bye"},
		{0x81, "never read"},
	}
	want := []part{
		{Text, "hello"},
		{Ping, "ping"},
		{Pong, ""},
		{Text, "fragmented"},
		{Binary, long},
		{Text, ""},
		{Text, ""},
		{Binary, long[:126]},
		{Binary, long[:65535]},
		{Binary, long[:65536]},
		{Text, "€"},
		{Close, "\x03\xe8bye"},
	}
	for _, masked := range []bool{false, true} {
		var src strings.Builder
		for _, f := range frames {
			src.WriteString(wire(f.first, masked, f.payload))
		}
		for name, r := range splits(src.String()) {
			got, err := readAll(r, masked)
			if diff := cmp.Diff(want, got); diff != "" || err != ErrClosed {
				t.Errorf("masked %v, %s: %v (-want +got):\n%s", masked, name, err, diff)
			}
		}
	}
}

// TestFaults is the B17 of a side that does not keep to the protocol.
func TestFaults(t *testing.T) {
	guest := func(first byte, payload string) string { return wire(first, true, payload) }
	tests := []struct {
		name string
		src  string
		code int
	}{
		{"compressed when not offered", guest(0xc1, "x"), ProtocolError},
		{"RSV2", guest(0xa1, "x"), ProtocolError},
		{"RSV3", guest(0x91, "x"), ProtocolError},
		{"RSV1 on a continuation", guest(0x01, "x") + guest(0xc0, "x"), ProtocolError},
		{"opcode 3", guest(0x83, "x"), ProtocolError},
		{"opcode 7", guest(0x87, "x"), ProtocolError},
		{"opcode 11", guest(0x8b, "x"), ProtocolError},
		{"opcode 15", guest(0x8f, "x"), ProtocolError},
		{"long ping", guest(0x89, strings.Repeat("x", 126)), ProtocolError},
		{"fragmented ping", guest(0x09, "x"), ProtocolError},
		{"fragmented close", guest(0x08, ""), ProtocolError},
		{"not masked", wire(0x81, false, "x"), ProtocolError},
		{"continuation first", guest(0x80, "x"), ProtocolError},
		{"continuation after the end", guest(0x81, "x") + guest(0x80, "x"), ProtocolError},
		{"message in message", guest(0x01, "x") + guest(0x81, "x"), ProtocolError},
		{"length 2^63", "\x82\xff\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", ProtocolError},
		{"length 2^64-1", "\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00", ProtocolError},
		{"16 bits for 125", "\x82\xfe\x00\x7d\x00\x00\x00\x00", ProtocolError},
		{"64 bits for 65535", "\x82\xff\x00\x00\x00\x00\x00\x00\xff\xff\x00\x00\x00\x00", ProtocolError},
		{"half a close code", guest(0x88, "\x03"), ProtocolError},
		{"close code 1005", guest(0x88, "\x03\xed"), ProtocolError},
		{"close code 1006", guest(0x88, "\x03\xee"), ProtocolError},
		{"close code 1015", guest(0x88, "\x03\xf7"), ProtocolError},
		{"close code 999", guest(0x88, "\x03\xe7"), ProtocolError},
		{"close code 2000", guest(0x88, "\x07\xd0"), ProtocolError},
		{"close code 5000", guest(0x88, "\x13\x88"), ProtocolError},
		{"close reason", guest(0x88, "\x03\xe8\xff"), InvalidText},
		{"text", guest(0x81, "abc\xff"), InvalidText},
		{"text, surrogate", guest(0x81, "\xed\xa0\x80"), InvalidText},
		{"text, cut rune", guest(0x81, "abc\xe2\x82"), InvalidText},
		{"text, rune cut over frames", guest(0x01, "\xe2") + guest(0x00, "\x82") + guest(0x80, ""), InvalidText},
		{"text, rune over a ping", guest(0x01, "\xe2") + guest(0x89, "") + guest(0x80, "x"), InvalidText},
	}
	for _, tt := range tests {
		for name, r := range splits(tt.src) {
			_, err := readAll(r, true)
			if e := new(Error); !errors.As(err, &e) || e.Code != tt.code {
				t.Errorf("%s, %s: %v, want %d", tt.name, name, err, tt.code)
			}
		}
	}
	if _, err := readAll(strings.NewReader(wire(0x81, true, "x")), false); err == nil || err == io.ErrUnexpectedEOF {
		t.Errorf("masked frame of a server: %v", err)
	}
	for _, cut := range []string{"", "\x81", "\x81\x85", "\x81\x85abcd", "\x81\x85abcdx", guest(0x01, "x")} {
		if _, err := readAll(strings.NewReader(cut), true); err != io.ErrUnexpectedEOF {
			t.Errorf("cut at %q: %v", cut, err)
		}
	}
}

// A length of 2^62 is possible and costs nothing: what is there is passed on.
func TestHugeLength(t *testing.T) {
	r := NewReader(io.MultiReader(strings.NewReader("\x82\x7f\x40\x00\x00\x00\x00\x00\x00\x00"), neverEnds{}), false)
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	if n, err := io.CopyN(io.Discard, r, 10<<20); n != 10<<20 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}

type neverEnds struct{}

func (neverEnds) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestWriter(t *testing.T) {
	for _, masked := range []bool{false, true} {
		var out bytes.Buffer
		w := NewWriter(&out, masked)
		w.Data(Text, false, []byte("hel"), nil)
		w.Control(Ping, []byte("p"))
		w.Data(Text, true, []byte("lo"), nil)
		w.Data(Binary, true, bytes.Repeat([]byte{7}, 200_000), nil)
		if err := w.Close(PolicyError, strings.Repeat("é", 100)); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		if w.Data(Text, true, nil, nil) == nil || w.Control(Ping, nil) == nil {
			t.Error("wrote after a Close frame")
		}
		if err := w.Close(GoingAway, ""); err != nil {
			t.Error(err)
		}
		got, err := readAll(&out, masked)
		want := []part{{Ping, "p"}, {Text, "hello"}, {Binary, strings.Repeat("\a", 200_000)}, {Close, "\x03\xf0" + strings.Repeat("é", 61)}}
		if diff := cmp.Diff(want, got); diff != "" || err != ErrClosed {
			t.Errorf("masked %v: %v (-want +got):\n%s", masked, err, diff)
		}
	}
}

// Each frame has a key of its own, and markers pass as they are.
func TestWriterMasks(t *testing.T) {
	var out bytes.Buffer
	w := NewWriter(&out, true)
	var keys [][4]byte
	w.Mask = func(marker string, key [4]byte, offset int) error {
		if marker == "MARKER1" && offset != 3 || marker == "MARK2" && offset != 11 {
			t.Errorf("%s at %d", marker, offset)
		}
		keys = append(keys, key)
		return nil
	}
	for range 2 {
		if err := w.Data(Text, true, []byte("abcMARKER1-MARK2"), []string{"MARKER1", "MARK2"}); err != nil {
			t.Fatal(err)
		}
	}
	w.Flush()
	if n := strings.Count(out.String(), "MARKER1"); n != 2 || strings.Count(out.String(), "MARK2") != 2 {
		t.Errorf("%d markers in %q", n, out.String())
	}
	if keys[0] != keys[1] || keys[0] == keys[2] {
		t.Errorf("keys are %x", keys)
	}
	refuse := errors.New("no")
	w.Mask = func(string, [4]byte, int) error { return refuse }
	out.Reset()
	if err := w.Data(Text, true, []byte("MARKER1"), []string{"MARKER1"}); err != refuse {
		t.Error(err)
	}
	if w.Data(Text, true, []byte("nothing"), []string{"MARKER1"}) == nil {
		t.Error("a marker that is not there was accepted")
	}
	if err := w.Close(PolicyError, ""); err != nil {
		t.Error(err)
	}
	w.Flush()
	if got, _ := readAll(&out, true); len(got) != 1 || got[0].Op != Close {
		t.Errorf("wrote %q after a refused mask", got)
	}
}

func TestValidator(t *testing.T) {
	alphabet := []string{"a", "é", "€", "𝄞", "\ufffd", "\xff", "\x80", "\xe2\x82", "\xed\xa0\x80", "\xf0\x9d", "\xc0\x80", "\xf4\x90\x80\x80"}
	for range 20_000 {
		var b strings.Builder
		for range rand.IntN(6) {
			b.WriteString(alphabet[rand.IntN(len(alphabet))])
		}
		text := b.String()
		var v validator
		ok := true
		for rest := []byte(text); len(rest) > 0 && ok; {
			n := 1 + rand.IntN(len(rest))
			ok = v.add(rest[:n])
			rest = rest[n:]
		}
		if ok = ok && v.complete(); ok != utf8.ValidString(text) {
			t.Fatalf("%q: %v", text, ok)
		}
	}
}

// FuzzReader: whatever comes, in whatever pieces, is read alike.
func FuzzReader(f *testing.F) {
	f.Add([]byte(wire(0x01, true, "fra")+wire(0x89, true, "ping")+wire(0x80, true, "gment")+wire(0x88, true, "\x03\xe8")), true)
	f.Add([]byte(wire(0x82, false, strings.Repeat("x", 70_000))), false)
	f.Add([]byte("\x82\xff\x80\x00\x00\x00\x00\x00\x00\x00"), true)
	f.Fuzz(func(t *testing.T, src []byte, masked bool) {
		want, wantErr := readAll(bytes.NewReader(src), masked)
		for name, r := range splits(string(src)) {
			got, err := readAll(r, masked)
			if diff := cmp.Diff(want, got); diff != "" || err.Error() != wantErr.Error() {
				t.Errorf("%s: %v, want %v (-want +got):\n%s", name, err, wantErr, diff)
			}
		}
	})
}

func BenchmarkReader(b *testing.B) {
	frame := []byte(wire(0x82, true, strings.Repeat("x", 1<<20)))
	src := bytes.NewReader(frame)
	r := NewReader(src, true)
	buf := make([]byte, 16<<10)
	b.SetBytes(1 << 20)
	b.ReportAllocs()
	for b.Loop() {
		src.Reset(frame)
		if _, err := r.Next(); err != nil {
			b.Fatal(err)
		}
		for {
			if _, err := r.Read(buf); err == io.EOF {
				break
			}
		}
	}
}

func BenchmarkWriter(b *testing.B) {
	w := NewWriter(io.Discard, true)
	p := make([]byte, 16<<10)
	b.SetBytes(16 << 10)
	b.ReportAllocs()
	for b.Loop() {
		w.Data(Binary, true, p, nil)
	}
}
