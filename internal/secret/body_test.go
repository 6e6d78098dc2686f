package secret

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// A scripted body gives its pieces one by one; markers are registered when
// they are reached, as a rewriter does.
type scripted struct {
	t      testing.TB
	b      *Body
	script string // V stands for the value, anything else for itself
	parts  []Part
	rest   string
	seen   []string // the markers
}

func (s *scripted) Read(p []byte) (int, error) {
	if s.rest == "" && s.script == "" {
		return 0, io.EOF
	}
	if s.rest == "" {
		i := strings.IndexByte(s.script, 'V')
		switch {
		case i < 0:
			s.rest, s.script = s.script, ""
		case i > 0:
			s.rest, s.script = s.script[:i], s.script[i:]
		default:
			m, err := s.b.Register(s.parts, Raw)
			if err != nil {
				return 0, err
			}
			s.rest, s.script = m, s.script[1:]
			s.seen = append(s.seen, m)
		}
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

func newBody(t testing.TB, s *Seal) *Body {
	t.Helper()
	b, err := s.Body()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// do sends a request with the body and returns what the upstream answered.
func do(t testing.TB, cc *http.ClientConn, addr, method string, b *Body, body io.Reader, length int64) (string, error) {
	t.Helper()
	req, err := http.NewRequest(method, "https://"+addr, io.NopCloser(body))
	if err != nil {
		return "", err
	}
	req.ContentLength = length
	name, value := b.Field()
	req.Header[name] = []string{value}
	resp, err := cc.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	return string(got), err
}

func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	for name := range r.Header {
		if strings.HasPrefix(name, "X-") {
			fmt.Fprintf(w, "field %s came through\n", name)
		}
	}
	fmt.Fprintf(w, "%d %v ", r.ContentLength, err)
	w.Write(body)
}

// TestBodies: real client, real TLS, real server, values of all lengths, over
// one connection.
func TestBodies(t *testing.T) {
	bothProtocols(t, func(t *testing.T, http2 bool) {
		st := newStore(t)
		u := newUpstream(t, echo)
		cc, seal := dialUpstream(t, u, http2, st)
		addr := u.Listener.Addr().String()
		for _, value := range []string{"12345678", "s3cretvalue-0001", strings.Repeat("0123456789abcdef", 2500), strings.Repeat("x", MaxValue)} {
			v := load(t, st, value)
			for _, script := range []string{"V", "a V b", "VV", "{V,V,V}", strings.Repeat("x", 16380) + "V" + strings.Repeat("y", 100_000) + "V.", strings.Repeat("V ", 20)} {
				want := strings.ReplaceAll(script, "V", value)
				for _, length := range []int64{-1, int64(len(want))} {
					for name, wrap := range map[string]func(io.Reader) io.Reader{
						"as it is": func(r io.Reader) io.Reader { return r },
						"bytes":    iotest.OneByteReader,
						"at once":  func(r io.Reader) io.Reader { return iotest.DataErrReader(r) },
					} {
						if name == "bytes" && len(want) > 1000 {
							continue
						}
						for _, method := range []string{"POST", "GET"} {
							b := newBody(t, seal)
							src := &scripted{t: t, b: b, script: script, parts: []Part{{Value: v}}}
							got, err := do(t, cc, addr, method, b, wrap(b.Reader(src)), length)
							if err != nil || got != fmt.Sprintf("%d <nil> %s", length, want) {
								t.Fatalf("%s, value of %d, script of %d, %s, length %d: got %.200q, %v (%v)", method, len(value), len(script), name, length, got, err, seal.cause())
							}
							b.Close()
						}
					}
				}
			}
			st.Release(v)
		}
		if n := len(st.blocks); n > 0 {
			t.Errorf("%d blocks are still in use", n)
		}
		if len(seal.bodies)+len(seal.open) > 0 || seal.frames != nil && len(seal.frames.bodies) > 0 {
			t.Error("bodies are remembered")
		}
	})
}

// TestBodyMarkerElsewhere: a marker of one stream is text in another, in a
// head, and before its place.
func TestBodyMarkerElsewhere(t *testing.T) {
	st := newStore(t)
	v := load(t, st, "s3cretvalue-0001")
	rec := &recorder{}
	s := NewSeal(rec, true, st)
	c := newClient(s)
	a, b := newBody(t, s), newBody(t, s)
	open := func(id uint32, body *Body) {
		name, value := body.Field()
		c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true, BlockFragment: c.encode("a: b", strings.ToLower(name)+": "+value)})
	}
	open(1, a)
	open(3, b)
	src := &scripted{t: t, b: a, script: "..V..", parts: []Part{{Value: v}}}
	text, err := io.ReadAll(a.Reader(src))
	if err != nil {
		t.Fatal(err)
	}
	m := src.seen[0]
	other, _ := io.ReadAll(b.Reader(strings.NewReader(m + m)))
	c.WriteData(3, false, other)
	c.WriteData(5, false, []byte(m))
	c.WriteHeaders(http2.HeadersFrameParam{StreamID: 7, EndHeaders: true, BlockFragment: c.encode("authorization: " + m)})
	c.WriteData(1, false, text[:7])
	c.WriteData(3, true, []byte(m))
	c.WriteData(1, true, text[7:])
	checkPeer(t, rec, "HEADERS 1|a: b", "HEADERS 3|a: b", "DATA 3 "+m+m, "DATA 5 "+m, "HEADERS 7|authorization: "+m,
		"DATA 1 ..s3cre", "DATA 3 "+m, "DATA 1 tvalue-0001..")
}

// TestBodyCuts: what the client should never do cuts the connection before
// anything of the value is written.
func TestBodyCuts(t *testing.T) {
	for _, protocol := range []string{"h1", "h2"} {
		for name, tt := range map[string]struct {
			script string
			write  func(text []byte, b *Body) (string, bool) // what is written in its place, and whether the body ends then
		}{
			"another text at its place": {"..V..", func(text []byte, _ *Body) (string, bool) { return strings.Repeat("x", len(text)), true }},
			"ends within a marker":      {"..V", func(text []byte, _ *Body) (string, bool) { return string(text[:2]), true }},
			"closed":                    {"..V..", func(text []byte, b *Body) (string, bool) { b.Close(); return string(text), true }},
		} {
			t.Run(protocol+"/"+name, func(t *testing.T) {
				st := newStore(t)
				v := load(t, st, "s3cretvalue-0001")
				rec := &recorder{}
				s := NewSeal(rec, protocol == "h2", st)
				b := newBody(t, s)
				text, _ := io.ReadAll(b.Reader(&scripted{t: t, b: b, script: tt.script, parts: []Part{{Value: v}}}))
				name, value := b.Field()
				if protocol == "h2" {
					c := newClient(s)
					c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: c.encode(strings.ToLower(name) + ": " + value)})
					out, end := tt.write(text, b)
					c.WriteData(1, end, []byte(out))
				} else {
					fmt.Fprintf(s, "POST / HTTP/1.1\r\n%s: %s\r\nTransfer-Encoding: chunked\r\n\r\n", name, value)
					out, _ := tt.write(text, b)
					fmt.Fprintf(s, "%x\r\n%s\r\n0\r\n\r\n", len(out), out)
				}
				if s.cause() == nil || !rec.closed || strings.Contains(rec.String(), "s3c") {
					t.Errorf("cause %v, wrote %q", s.cause(), rec)
				}
				b.Close()
				if len(st.blocks) != 1 || st.blocks[0].refs != 1 {
					t.Errorf("memory in use after the cut: %+v", st.blocks)
				}
			})
		}
	}
}

// TestUnknownBody: a field that names no body cuts, and is never sent.
func TestUnknownBody(t *testing.T) {
	st := newStore(t)
	for _, value := range []string{"", "guess"} {
		rec := &recorder{}
		s := NewSeal(rec, false, st)
		fmt.Fprintf(s, "GET / HTTP/1.1\r\n%s: %s\r\n\r\n", s.field, value)
		if s.cause() == nil || rec.String() != "" {
			t.Errorf("%q: wrote %q, %v", value, rec, s.cause())
		}
	}
}

// TestLostMarker: a body that does not hold what was registered has no end.
func TestLostMarker(t *testing.T) {
	st := newStore(t)
	v := load(t, st, "s3cretvalue-0001")
	s := NewSeal(&recorder{}, true, st)
	b := newBody(t, s)
	if _, err := b.Register([]Part{{Value: v}}, Raw); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(b.Reader(strings.NewReader("nothing"))); !errors.Is(err, errLostMarker) {
		t.Errorf("error is %v", err)
	}
	s.Close()
	if _, err := b.Register([]Part{{Value: v}}, Raw); err == nil {
		t.Error("registered after Close")
	}
	if _, err := s.Body(); err == nil {
		t.Error("a closed seal has bodies")
	}
	if len(st.blocks) != 1 || st.blocks[0].refs != 1 {
		t.Errorf("memory in use: %+v", st.blocks)
	}
}

// TestBodyIsLive: nothing is held back, whatever it ends in, while markers of
// the same and of other requests are outstanding.
func TestBodyIsLive(t *testing.T) {
	bothProtocols(t, func(t *testing.T, http2 bool) {
		st := newStore(t)
		v := load(t, st, "s3cretvalue-0001")
		heard := make(chan string)
		u := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
			http.NewResponseController(w).EnableFullDuplex()
			buf := make([]byte, 100)
			for {
				n, err := r.Body.Read(buf)
				if n > 0 {
					heard <- string(buf[:n])
				}
				if err != nil {
					close(heard)
					return
				}
			}
		})
		cc, seal := dialUpstream(t, u, http2, st)
		register(t, seal, Raw, Part{Value: v}) // never written
		b := newBody(t, seal)
		defer b.Close()
		in, out := io.Pipe()
		go do(t, cc, u.Listener.Addr().String(), "POST", b, b.Reader(in), -1)
		for i := range prefixLen + 1 {
			piece := "..." + seal.prefix[:i]
			io.WriteString(out, piece)
			got := ""
			for got != piece {
				select {
				case s := <-heard:
					got += s
				case <-time.After(5 * time.Second):
					t.Fatalf("heard %q, want %q", got, piece)
				}
			}
		}
		out.Close()
		<-heard
	})
}

// FuzzBodies: whatever the split of reads, chunks or frames, and writes, the
// peer gets the replaced text, and no value without a registration.
func FuzzBodies(f *testing.F) {
	f.Add("a0b1c2", []byte{3, 1, 9}, []byte{5}, false)
	f.Add("001122", []byte{0}, []byte{0, 3}, true)
	f.Add("x0"+strings.Repeat("-", 300)+"2.1", []byte{60, 2}, []byte{200, 1}, true)
	f.Add("1"+strings.Repeat("p", 9), []byte{7}, []byte{}, false)
	st := newStore(f)
	values := []string{"12345678", "s3cretvalue-0001", strings.Repeat("long", 100)}
	var handles []Value
	for _, v := range values {
		handles = append(handles, load(f, st, v))
	}
	f.Fuzz(func(t *testing.T, script string, reads, writes []byte, http2 bool) {
		rec := &recorder{}
		s := NewSeal(rec, http2, st)
		defer s.Close()
		b := newBody(t, s)
		defer b.Close()
		in := &fuzzed{t: t, s: s, b: b, script: script, values: values, handles: handles}
		text := readIn(t, b.Reader(in), reads)
		in.compare(t, s, text, rec, b, writes, http2)
	})
}

// A fuzzed body follows a script: 0-2 stand for values, p for the beginning
// of a marker, anything else for itself.
type fuzzed struct {
	t       *testing.T
	s       *Seal
	b       *Body
	script  string
	values  []string
	handles []Value
	rest    string
	want    bytes.Buffer
}

func (f *fuzzed) Read(p []byte) (int, error) {
	for f.rest == "" {
		if f.script == "" {
			return 0, io.EOF
		}
		c := f.script[0]
		f.script = f.script[1:]
		switch i := int(c) - '0'; {
		case i >= 0 && i < len(f.values):
			m, err := f.b.Register([]Part{{Value: f.handles[i]}}, Raw)
			if err != nil {
				f.t.Fatal(err)
			}
			f.rest = m
			f.want.WriteString(f.values[i])
		case c == 'p':
			f.rest = f.s.prefix[:1+len(f.script)%prefixLen]
			f.want.WriteString(f.rest)
		default:
			f.rest = string([]byte{c})
			f.want.WriteByte(c)
		}
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

func readIn(t *testing.T, r io.Reader, sizes []byte) []byte {
	var out []byte
	for i := 0; ; i++ {
		n := 1000
		if len(sizes) > 0 {
			n = int(sizes[i%len(sizes)]) + 1
		}
		p := make([]byte, n)
		n, err := r.Read(p)
		out = append(out, p[:n]...)
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// compare frames text in pieces, writes the frames in other pieces, and reads
// them as a peer does.
func (f *fuzzed) compare(t *testing.T, s *Seal, text []byte, rec *recorder, b *Body, writes []byte, h2 bool) {
	name, value := b.Field()
	var framed recorder
	var fr *http2.Framer
	if h2 {
		framed.Write([]byte(http2.ClientPreface))
		fr = http2.NewFramer(&framed, nil)
		c := &client{}
		c.enc = hpack.NewEncoder(&c.block)
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: c.encode("a: b", strings.ToLower(name)+": "+value)})
	} else {
		fmt.Fprintf(&framed, "POST / HTTP/1.1\r\nA: b\r\n%s: %s\r\nTransfer-Encoding: chunked\r\n\r\n", name, value)
	}
	for i := 0; len(text) > 0; i++ {
		n := len(text)
		if len(writes) > 0 {
			n = min(n, int(writes[(i*7)%len(writes)])%50+1)
		}
		if h2 {
			fr.WriteData(1, false, text[:n])
			fr.WriteData(3, false, []byte("of another stream"))
		} else {
			fmt.Fprintf(&framed, "%x\r\n%s\r\n", n, text[:n])
		}
		text = text[n:]
	}
	if h2 {
		fr.WriteData(1, true, nil)
	} else {
		fmt.Fprint(&framed, "0\r\nX: y\r\n\r\nGET / HTTP/1.1\r\n\r\n")
	}
	all := []byte(framed.String())
	for i := 0; len(all) > 0; i++ {
		n := len(all)
		if len(writes) > 0 {
			n = min(n, int(writes[i%len(writes)])+1)
		}
		if _, err := s.Write(all[:n]); err != nil {
			t.Fatal(err)
		}
		all = all[n:]
	}
	got := ""
	if h2 {
		for _, line := range peer(t, rec.String()) {
			got += strings.TrimPrefix(strings.TrimPrefix(line, "DATA 3 of another stream"), "DATA 1 ")
		}
		got = strings.TrimPrefix(got, "HEADERS 1|a: b")
	} else {
		rest, ok := strings.CutPrefix(rec.String(), "POST / HTTP/1.1\r\nA: b\r\nTransfer-Encoding: chunked\r\n\r\n")
		rest, ok2 := strings.CutSuffix(rest, "0\r\nX: y\r\n\r\nGET / HTTP/1.1\r\n\r\n")
		if !ok || !ok2 {
			t.Fatalf("wrote %q", rec)
		}
		for rest != "" {
			var n int
			fmt.Sscanf(rest, "%x\r\n", &n)
			_, rest, _ = strings.Cut(rest, "\r\n")
			got += rest[:n]
			rest = rest[n+2:]
		}
	}
	if got != f.want.String() {
		t.Errorf("got %.300q\nwant %.300q", got, f.want.String())
	}
}

func BenchmarkBody(b *testing.B) {
	const size = 32 << 20
	st := newStore(b)
	v := load(b, st, strings.Repeat("k", 40))
	u := newUpstream(b, func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })
	text := bytes.Repeat([]byte("all work and no play makes it "), size/30)
	for _, p := range []string{"h1", "h2"} {
		for _, how := range []string{"bare", "sealed", "markers"} {
			b.Run(p+"/"+how, func(b *testing.B) {
				cc, seal := dialUpstream(b, u, p == "h2", st)
				if how == "bare" {
					cc = dialBare(b, u, p == "h2")
				}
				b.SetBytes(int64(len(text)))
				for b.Loop() {
					req, _ := http.NewRequest("POST", "https://"+u.Listener.Addr().String(), nil)
					req.ContentLength = int64(len(text))
					req.Body = io.NopCloser(bytes.NewReader(text))
					if how == "markers" {
						body := newBody(b, seal)
						defer body.Close()
						name, value := body.Field()
						req.Header[name] = []string{value}
						req.Body = io.NopCloser(body.Reader(&every{b: body, v: v, text: text}))
					}
					resp, err := cc.RoundTrip(req)
					if err != nil {
						b.Fatal(err)
					}
					io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
			})
		}
	}
}

// every puts a marker into each 64 KiB.
type every struct {
	b    *Body
	v    Value
	text []byte
	n    int
}

func (e *every) Read(p []byte) (int, error) {
	if len(e.text) == 0 {
		return 0, io.EOF
	}
	n := copy(p, e.text)
	if before := e.n; before>>16 != (e.n+n)>>16 && n >= 100 {
		m, err := e.b.Register([]Part{{Value: e.v}}, Raw)
		if err != nil {
			return 0, err
		}
		copy(p[50:], m)
	}
	e.n += n
	e.text = e.text[n:]
	return n, nil
}
