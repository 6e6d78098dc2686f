package secret

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A recorder is a connection that keeps what is written to it.
type recorder struct {
	net.Conn
	mu     sync.Mutex
	writes [][]byte
	fail   error
	closed bool
}

func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		return 0, r.fail
	}
	r.writes = append(r.writes, bytes.Clone(p))
	return len(p), nil
}

func (r *recorder) Close() error { r.closed = true; return nil }

func (r *recorder) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return string(bytes.Join(r.writes, nil))
}

// newStream returns a seal on a connection that has changed its protocol.
func newStream(c net.Conn, st *Store) *Seal {
	s := NewSeal(c, false, st)
	s.Upgraded()
	return s
}

func register(t testing.TB, s *Seal, enc Encoding, parts ...Part) string {
	t.Helper()
	m, err := s.Register(parts, enc)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestRegister(t *testing.T) {
	st := newStore(t)
	v := load(t, st, "s3cretvalue-0001")
	w := load(t, st, "other/value+0002?")
	other := load(t, newStore(t), "of another store")
	tests := []struct {
		name  string
		parts []Part
		enc   Encoding
		want  string // "" = refused
	}{
		{"raw", []Part{{Value: v}}, Raw, "s3cretvalue-0001"},
		{"raw parts", []Part{{Text: "a "}, {Value: v}, {Text: "|"}, {Value: w}}, Raw, "a s3cretvalue-0001|other/value+0002?"},
		{"text", []Part{{Text: "no value at all"}}, Raw, "no value at all"},
		{"Base64 of 0 mod 3", []Part{{Text: "user"}, {Text: ":"}, {Value: v}}, Base64, base64.StdEncoding.EncodeToString([]byte("user:s3cretvalue-0001"))},
		{"Base64 of 1 mod 3", []Part{{Value: v}}, Base64, base64.StdEncoding.EncodeToString([]byte("s3cretvalue-0001"))},
		{"Base64 of 2 mod 3", []Part{{Value: w}}, Base64, base64.StdEncoding.EncodeToString([]byte("other/value+0002?"))},
		{"empty text", []Part{{Text: ""}, {Value: v}}, Base64, base64.StdEncoding.EncodeToString([]byte("s3cretvalue-0001"))},
		{"nothing", nil, Raw, ""},
		{"nothing in Base64", nil, Base64, ""},
		{"too short", []Part{{Text: "1234567"}}, Raw, ""},
		{"too long", []Part{{Value: v}, {Text: strings.Repeat("x", maxEncoded)}}, Raw, ""},
		{"both text and value", []Part{{Text: "x", Value: v}}, Raw, ""},
		{"unknown encoding", []Part{{Value: v}}, Encoding(99), ""},
		{"of another store", []Part{{Value: other}}, Raw, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			blocks := len(st.blocks)
			rec := &recorder{}
			s := newStream(rec, st)
			m, err := s.Register(tt.parts, tt.enc)
			if tt.want == "" {
				if err == nil {
					t.Error("accepted")
				}
				if len(st.blocks) != blocks {
					t.Error("a refused registration keeps memory")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(m) != len(tt.want) || strings.Trim(m, alphanumeric) != "" {
				t.Errorf("marker %q for %d bytes", m, len(tt.want))
			}
			fmt.Fprintf(s, "<%s>", m)
			if rec.String() != "<"+tt.want+">" {
				t.Errorf("wrote %q, want %q", rec, tt.want)
			}
			if len(st.blocks) != blocks {
				t.Error("a spent marker keeps memory")
			}
		})
	}
}

func TestMarkersDiffer(t *testing.T) {
	st := newStore(t)
	v := load(t, st, "12345678")
	s := newStream(&recorder{}, st)
	seen := map[string]bool{}
	for range 5000 {
		m := register(t, s, Raw, Part{Value: v})
		if seen[m] {
			t.Fatal("one marker twice")
		}
		seen[m] = true
	}
	if m := register(t, newStream(&recorder{}, st), Raw, Part{Value: v}); strings.HasPrefix(m, s.prefix) {
		t.Error("two connections have one prefix")
	}
}

// TestSwappedOnce: a marker that is written again, by whomever, never gets
// the value a second time.
func TestSwappedOnce(t *testing.T) {
	for _, again := range []string{"before Forget", "after Forget"} {
		t.Run(again, func(t *testing.T) {
			st := newStore(t)
			v := load(t, st, "s3cretvalue-0001")
			rec := &recorder{}
			s := newStream(rec, st)
			m := register(t, s, Raw, Part{Value: v})
			fmt.Fprintf(s, "A: %s\r\n", m)
			if again == "after Forget" {
				s.Forget(m)
				s.Forget(m)
			}
			fmt.Fprintf(s, "B: %s\r\n", m)
			if n := strings.Count(rec.String(), "s3cretvalue-0001"); n != 1 {
				t.Errorf("value was written %d times", n)
			}
		})
	}
}

// TestMarkerTwiceInOneWrite is cut before a byte of it is written.
func TestMarkerTwiceInOneWrite(t *testing.T) {
	st := newStore(t)
	v := load(t, st, "s3cretvalue-0001")
	rec := &recorder{}
	s := newStream(rec, st)
	m := register(t, s, Raw, Part{Value: v})
	if _, err := fmt.Fprintf(s, "A: %s\r\nB: %s\r\n", m, m); err == nil {
		t.Error("no error")
	}
	if rec.String() != "" || !rec.closed {
		t.Errorf("wrote %q, closed %v", rec, rec.closed)
	}
	if _, err := s.Write([]byte("more")); err == nil {
		t.Error("a cut connection takes more")
	}
}

func TestForget(t *testing.T) {
	st := newStore(t)
	v := load(t, st, "s3cretvalue-0001")
	rec := &recorder{}
	s := newStream(rec, st)
	m := register(t, s, Raw, Part{Value: v})
	s.Forget(m)
	s.Forget("short")
	s.Forget(m[:keyLen])
	if _, err := s.Write([]byte(m)); err != nil || rec.String() != m {
		t.Errorf("wrote %q, %v", rec, err)
	}
}

// TestForgetLetsGo: what was held for a marker goes out when the marker is
// forgotten, and not only with the next write.
func TestForgetLetsGo(t *testing.T) {
	st := newStore(t)
	v := load(t, st, "s3cretvalue-0001")
	rec := &recorder{}
	s := newStream(rec, st)
	m := register(t, s, Raw, Part{Value: v})
	text := "the last bytes are " + m[:6]
	s.Write([]byte(text))
	s.Forget(m)
	for end := time.Now().Add(5 * time.Second); rec.String() != text; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("wrote %q, want %q", rec, text)
		}
	}
}

// TestReleasedValueIsWritten: rotation does not turn a registered value into
// zeros.
func TestReleasedValueIsWritten(t *testing.T) {
	st := newStore(t)
	v := load(t, st, "s3cretvalue-0001")
	rec := &recorder{}
	s := newStream(rec, st)
	m := register(t, s, Raw, Part{Value: v})
	st.Release(v)
	if reveal(v) != "s3cretvalue-0001" {
		t.Fatal("zeroed under a registered marker")
	}
	s.Write([]byte(m))
	if rec.String() != "s3cretvalue-0001" {
		t.Errorf("wrote %q", rec)
	}
	if len(st.blocks) != 0 || bytes.Contains(st.mem.bytes, []byte("s3cret")) {
		t.Error("the value outlives its last marker")
	}
}

func TestClosedStoreCuts(t *testing.T) {
	st := newStore(t)
	v := load(t, st, "s3cretvalue-0001")
	rec := &recorder{}
	s := newStream(rec, st)
	m := register(t, s, Raw, Part{Value: v})
	st.Close()
	if _, err := s.Write([]byte("A: " + m)); !errors.Is(err, ErrClosed) {
		t.Errorf("error %v", err)
	}
	if rec.String() != "" || !rec.closed {
		t.Errorf("wrote %q, closed %v", rec, rec.closed)
	}
}

func TestCloseForgets(t *testing.T) {
	st := newStore(t)
	s := NewSeal(&recorder{}, true, st)
	register(t, s, Base64, Part{Value: load(t, st, "s3cretvalue-0001")})
	s.Close()
	s.Close()
	if len(st.blocks) != 1 {
		t.Errorf("%d blocks in use, want the value's alone", len(st.blocks))
	}
	if _, err := s.Register([]Part{{Text: "12345678"}}, Raw); err == nil {
		t.Error("a closed seal registers")
	}
}

func TestFailedWriteCuts(t *testing.T) {
	st := newStore(t)
	v := load(t, st, "s3cretvalue-0001")
	rec := &recorder{fail: errors.New("reset")}
	s := newStream(rec, st)
	m := register(t, s, Raw, Part{Value: v})
	if _, err := s.Write([]byte(m)); err == nil {
		t.Error("no error")
	}
	rec.fail = nil
	if _, err := s.Write([]byte("x")); err == nil || rec.String() != "" {
		t.Errorf("went on after a failed write: %q, %v", rec, err)
	}
	if n := len(st.slot); n != slots {
		t.Errorf("%d of %d slots are free", n, slots)
	}
}

// TestSlotsAreZeroed: nothing of a value or of what stood beside it stays in
// the scratch memory.
func TestSlotsAreZeroed(t *testing.T) {
	st := newStore(t)
	s := newStream(&recorder{}, st)
	m := register(t, s, Raw, Part{Value: load(t, st, "s3cretvalue-0001")})
	s.Write([]byte("beside " + m))
	if scratch := st.mem.bytes[st.limit:]; strings.Trim(string(scratch), "\x00") != "" {
		t.Error("a slot was not zeroed")
	}
}

// TestLive: what cannot be part of a marker is never held back.
func TestLive(t *testing.T) {
	st := newStore(t)
	rec := &recorder{}
	s := newStream(rec, st)
	p := []byte("GET / HTTP/1.1\r\n")
	s.Write(p)
	if rec.String() != string(p) {
		t.Errorf("without a marker wrote %q", rec)
	}
	m := register(t, s, Raw, Part{Value: load(t, st, "s3cretvalue-0001")})
	text := "(" + m[:5] + ")" + m[:3] + "-" + m[1:] + "."
	s.Write([]byte(text + m[:10]))
	if got := rec.String()[len(p):]; got != text {
		t.Errorf("wrote %q, want %q", got, text)
	}
	s.Write([]byte("no marker after all\n"))
	if got := rec.String()[len(p):]; got != text+m[:10]+"no marker after all\n" {
		t.Errorf("held bytes came out as %q", got)
	}
}

// TestPassesUncopied: without a marker outstanding the very bytes of the
// caller are written on.
func TestPassesUncopied(t *testing.T) {
	st := newStore(t)
	s := newStream(&recorder{}, st)
	p := bytes.Repeat([]byte("x"), 1<<16)
	if n := testing.AllocsPerRun(20, func() { s.writeStream(p) }); n > 3 { // the recorder's own
		t.Errorf("%v allocations", n)
	}
}

// FuzzStream: any split of the writes gives the same bytes, namely those of
// an obvious replacement; a marker that occurs again is text or cuts.
func FuzzStream(f *testing.F) {
	f.Add("A: 0\r\nB: 1\r\n\r\n", []byte{3, 1})
	f.Add("001122 0x1x2x", []byte{0})
	f.Add("aabbccab0a1b2c", []byte{7, 30})
	f.Add(strings.Repeat("0", 3)+strings.Repeat("x", 70000)+"1", []byte{200})
	st := newStore(f)
	values := []string{"12345678", "s3cretvalue-0001", strings.Repeat("long", 100)}
	var parts []Part
	for _, v := range values {
		parts = append(parts, Part{Value: load(f, st, v)})
	}
	f.Fuzz(func(t *testing.T, script string, sizes []byte) {
		rec := &recorder{}
		s := newStream(rec, st)
		defer s.Close()
		var markers []string
		for _, p := range parts {
			markers = append(markers, register(t, s, Raw, p))
		}
		// In the script 0-2 stand for markers, the first time, and a-c for
		// their first letters.
		var text, want strings.Builder
		used := make([]bool, len(markers))
		for _, c := range script {
			switch i := int(c - '0'); {
			case i >= 0 && i < len(markers) && !used[i]:
				used[i] = true
				text.WriteString(markers[i])
				want.WriteString(values[i])
				continue
			}
			piece := string(c)
			if i := int(c - 'a'); i >= 0 && i < len(markers) {
				piece = markers[i][:1+(i*5+int(c))%len(markers[i][:8])]
			}
			text.WriteString(piece)
			want.WriteString(piece)
		}
		in := []byte(text.String())
		for i := 0; len(in) > 0; i++ {
			n := len(in)
			if len(sizes) > 0 {
				n = min(n, int(sizes[i%len(sizes)])+1)
			}
			if m, err := s.Write(in[:n]); err != nil || m != n {
				t.Fatalf("Write: %d of %d, %v", m, n, err)
			}
			in = in[n:]
		}
		got := rec.String() + string(s.held)
		if got != want.String() {
			t.Errorf("wrote %.300q\nwant  %.300q", got, want.String())
		}
	})
}

// TestConcurrent registers, writes and forgets from many goroutines.
func TestConcurrent(t *testing.T) {
	st := newStore(t)
	v := load(t, st, "s3cretvalue-0001")
	rec := &recorder{}
	s := newStream(rec, st)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 200 {
				m, err := s.Register([]Part{{Text: "u:"}, {Value: v}}, []Encoding{Raw, Base64}[i%2])
				if err != nil {
					t.Error(err)
					return
				}
				s.Write([]byte("<" + m + ">"))
				s.Forget(m)
			}
		})
	}
	wg.Wait()
	lines := strings.Split(strings.Trim(rec.String(), "<>"), "><")
	slices.Sort(lines)
	if got := slices.Compact(lines); len(got) != 2 || len(rec.writes) < 1600 {
		t.Errorf("wrote %q in %d writes", got, len(rec.writes))
	}
}
