package secret

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// A client writes HTTP/2 frames as net/http does.
type client struct {
	*http2.Framer
	block bytes.Buffer
	enc   *hpack.Encoder
}

func newClient(s *Seal) *client {
	c := &client{Framer: http2.NewFramer(s, nil)}
	c.Framer.AllowIllegalWrites = true
	c.enc = hpack.NewEncoder(&c.block)
	s.Write([]byte(http2.ClientPreface))
	return c
}

// encode returns the block of fields, given as "name: value".
func (c *client) encode(fields ...string) []byte {
	c.block.Reset()
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		c.enc.WriteField(hpack.HeaderField{Name: name, Value: value})
	}
	return bytes.Clone(c.block.Bytes())
}

// peer reads all that was written as an HTTP/2 server does, and returns it
// one line per frame, header blocks decoded.
func peer(t *testing.T, wrote string) []string {
	t.Helper()
	wrote, ok := strings.CutPrefix(wrote, http2.ClientPreface)
	if !ok {
		t.Fatalf("no preface in %.60q", wrote)
	}
	var lines []string
	fr := http2.NewFramer(nil, strings.NewReader(wrote))
	fr.SetMaxReadFrameSize(16384) // the least a peer may announce
	dec := hpack.NewDecoder(4096, nil)
	var block []byte
	var head string
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			if n := len(wrote); err.Error() != "EOF" {
				t.Fatalf("peer: %v (%d bytes)", err, n)
			}
			return lines
		}
		ended := false
		switch f := f.(type) {
		case *http2.HeadersFrame:
			head = fmt.Sprintf("HEADERS %d", f.StreamID)
			if f.StreamEnded() {
				head += " end"
			}
			if f.HasPriority() {
				head += fmt.Sprintf(" priority %d/%d", f.Priority.StreamDep, f.Priority.Weight)
			}
			block, ended = bytes.Clone(f.HeaderBlockFragment()), f.HeadersEnded()
		case *http2.ContinuationFrame:
			head += "+"
			block, ended = append(block, f.HeaderBlockFragment()...), f.HeadersEnded()
		case *http2.DataFrame:
			lines = append(lines, fmt.Sprintf("DATA %d %s", f.StreamID, f.Data()))
		default:
			lines = append(lines, f.Header().Type.String())
		}
		if ended {
			fields, err := dec.DecodeFull(block)
			if err != nil {
				t.Fatalf("peer: %v", err)
			}
			for _, f := range fields {
				mark := ""
				if f.Sensitive {
					mark = " (never indexed)"
				}
				head += fmt.Sprintf("|%s: %s%s", f.Name, f.Value, mark)
			}
			lines = append(lines, head)
		}
	}
}

func checkPeer(t *testing.T, rec *recorder, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, peer(t, rec.String())); diff != "" {
		t.Errorf("peer saw (-want +got):\n%s", diff)
	}
}

func newHTTP2(t *testing.T) (*Store, Value, *recorder, *Seal, *client) {
	st := newStore(t)
	rec := &recorder{}
	s := NewSeal(rec, true, st)
	return st, load(t, st, "s3cretvalue-0001"), rec, s, newClient(s)
}

func TestHeaders(t *testing.T) {
	st, v, rec, s, c := newHTTP2(t)
	m1 := register(t, s, Raw, Part{Value: v})
	m2 := register(t, s, Base64, Part{Text: "u:"}, Part{Value: v})
	c.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 0})
	c.WriteHeaders(http2.HeadersFrameParam{
		StreamID: 1, EndHeaders: true,
		BlockFragment: c.encode(":method: POST", ":path: /", "a: plain", "authorization: Bearer "+m1, "b: plain", "x-api-key: "+m2+","+s.prefix+"no marker"),
	})
	c.WriteData(1, false, []byte("body"))
	c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndStream: true, EndHeaders: true, BlockFragment: c.encode("trailer: a")})
	// Fields that net/http's encoder took from its dynamic table.
	c.WriteHeaders(http2.HeadersFrameParam{
		StreamID: 3, EndStream: true, EndHeaders: true,
		BlockFragment: c.encode("a: plain", "b: plain", "authorization: Bearer "+m1[:6]),
	})
	checkPeer(t, rec,
		"SETTINGS",
		"HEADERS 1|:method: POST|:path: /|a: plain|authorization: Bearer s3cretvalue-0001 (never indexed)|b: plain|"+
			"x-api-key: dTpzM2NyZXR2YWx1ZS0wMDAx,"+s.prefix+"no marker (never indexed)",
		"DATA 1 body",
		"HEADERS 1 end|trailer: a",
		"HEADERS 3 end|a: plain|b: plain|authorization: Bearer "+m1[:6])
	if len(st.blocks) != 1 {
		t.Errorf("%d blocks in use", len(st.blocks))
	}
}

// TestNeverIndexed looks at the bytes: first byte 0x10, no Huffman coding,
// so that neither table nor compression state holds the value (RFC 7541
// §7.1.3), and no field at all enters the peer's dynamic table.
func TestNeverIndexed(t *testing.T) {
	_, v, rec, s, c := newHTTP2(t)
	for i := range 3 {
		m := register(t, s, Raw, Part{Value: v})
		c.WriteHeaders(http2.HeadersFrameParam{
			StreamID: uint32(2*i + 1), EndHeaders: true,
			BlockFragment: c.encode("custom: same each time", "authorization: "+m),
		})
	}
	literal := "\x10\x0dauthorization\x10s3cretvalue-0001"
	if n := strings.Count(rec.String(), literal); n != 3 {
		t.Errorf("%d never-indexed literals, want 3", n)
	}
	fr := http2.NewFramer(nil, strings.NewReader(rec.String()[len(http2.ClientPreface):]))
	var sizes []int
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			break
		}
		block := f.(*http2.HeadersFrame).HeaderBlockFragment()
		sizes = append(sizes, len(block))
		if i := bytes.IndexByte(block, 0x40); i == 0 || i == 1 {
			t.Error("a field is to be indexed")
		}
	}
	// Only the first block has a size update (one byte); were "custom"
	// indexed the later ones would be shorter by more.
	if diff := cmp.Diff([]int{sizes[1] + 1, sizes[1], sizes[1]}, sizes); diff != "" {
		t.Errorf("block sizes (-want +got):\n%s", diff)
	}
}

func TestPaddingAndPriority(t *testing.T) {
	_, v, rec, s, c := newHTTP2(t)
	m := register(t, s, Raw, Part{Value: v})
	c.WriteHeaders(http2.HeadersFrameParam{
		StreamID: 5, EndStream: true, EndHeaders: true, PadLength: 17,
		Priority: http2.PriorityParam{StreamDep: 3, Weight: 9}, BlockFragment: c.encode("authorization: " + m),
	})
	checkPeer(t, rec, "HEADERS 5 end priority 3/9|authorization: s3cretvalue-0001 (never indexed)")
}

// TestBlockOverFrames: a block longer than a frame, its value across the cut.
func TestBlockOverFrames(t *testing.T) {
	for _, before := range []int{maxFragment - 60, maxFragment - 40, maxFragment - 30, maxFragment, 3 * maxFragment} {
		_, v, rec, s, c := newHTTP2(t)
		m := register(t, s, Raw, Part{Value: v})
		filler := strings.Repeat("\x01", before) // which Huffman coding does not shorten
		block := c.encode("filler: "+filler, "authorization: "+m, "after: x")
		c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:100]})
		c.WriteContinuation(1, false, block[100:200])
		c.WriteContinuation(1, true, block[200:])
		c.WriteData(1, true, []byte("x"))
		got := peer(t, rec.String())
		fields := "|filler: " + filler + "|authorization: s3cretvalue-0001 (never indexed)|after: x"
		if len(got) != 2 || !strings.HasPrefix(got[0], "HEADERS 1") || !strings.HasSuffix(got[0], fields) {
			t.Errorf("before %d: peer saw %d lines, first %.80q", before, len(got), got[0])
		}
	}
}

// TestTableSize: the client follows a table size that the peer announced.
func TestTableSize(t *testing.T) {
	for _, size := range []uint32{0, 100, 4096, 65536} {
		_, v, rec, s, c := newHTTP2(t)
		c.enc.SetMaxDynamicTableSizeLimit(size)
		c.enc.SetMaxDynamicTableSize(size)
		var want []string
		for i := range 4 {
			m := register(t, s, Raw, Part{Value: v})
			if i == 2 {
				c.enc.SetMaxDynamicTableSize(64)
			}
			filler := strings.Repeat("f", 3000)
			c.WriteHeaders(http2.HeadersFrameParam{
				StreamID: uint32(2*i + 1), EndHeaders: true,
				BlockFragment: c.encode("a: "+filler, "b: x"+filler, "authorization: "+m),
			})
			want = append(want, fmt.Sprintf("HEADERS %d|a: %s|b: x%[2]s|authorization: s3cretvalue-0001 (never indexed)", 2*i+1, filler))
		}
		checkPeer(t, rec, want...)
	}
}

// TestMalformed: whatever net/http should never write cuts the connection
// before a value is written.
func TestMalformed(t *testing.T) {
	tests := []struct {
		name  string
		write func(c *client, block []byte)
	}{
		{"block interrupted by DATA", func(c *client, b []byte) {
			c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: b[:3]})
			c.WriteData(1, false, nil)
			c.WriteContinuation(1, true, b[3:])
		}},
		{"block interrupted by HEADERS", func(c *client, b []byte) {
			c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: b[:3]})
			c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: b})
		}},
		{"CONTINUATION of another stream", func(c *client, b []byte) {
			c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: b[:3]})
			c.WriteContinuation(3, true, b[3:])
		}},
		{"CONTINUATION alone", func(c *client, b []byte) { c.WriteContinuation(1, true, b) }},
		{"PUSH_PROMISE", func(c *client, b []byte) {
			c.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, BlockFragment: b, EndHeaders: true})
		}},
		{"stream 0", func(c *client, b []byte) {
			c.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 0, b)
		}},
		{"padding longer than the frame", func(c *client, b []byte) {
			c.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersPadded, 1, append([]byte{255}, b...))
		}},
		{"padded and empty", func(c *client, b []byte) {
			c.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersPadded, 1, nil)
		}},
		{"no room for priority", func(c *client, b []byte) {
			c.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersPriority, 1, []byte{0, 0, 0, 1})
		}},
		{"bad block", func(c *client, b []byte) {
			c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: append(b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)})
		}},
		{"index of no entry", func(c *client, b []byte) {
			c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: append(b, 0xfe)})
		}},
		{"cut block", func(c *client, b []byte) {
			c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: b[:len(b)-1]})
		}},
		{"endless block", func(c *client, b []byte) {
			c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: b})
			for range 2 * maxBlock / 16000 {
				c.WriteContinuation(1, false, make([]byte, 16000))
			}
		}},
		{"marker of a spent registration", func(c *client, b []byte) {
			c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: append(b, b...)})
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			st, v, rec, s, c := newHTTP2(t)
			m := register(t, s, Raw, Part{Value: v})
			tt.write(c, c.encode("authorization: "+m))
			if s.err == nil || !rec.closed {
				t.Error("the connection was not cut")
			}
			if strings.Contains(rec.String(), "s3cret") {
				t.Error("the value was written")
			}
			if len(st.blocks) != 1 || st.blocks[0].refs != 1 {
				t.Errorf("memory in use after the cut: %+v", st.blocks)
			}
		})
	}
}

// FuzzFrames: any split of a real client's writes gives the peer the same
// frames; arbitrary bytes instead of them never panic and never get a value
// that was not registered.
func FuzzFrames(f *testing.F) {
	f.Add([]byte{1, 0, 1}, []byte{})
	f.Add([]byte{250, 9}, []byte{0, 0, 4, 1, 4, 0, 0, 0, 1, 0x82, 0x86, 0x84, 0x41})
	f.Add([]byte{}, []byte{0, 0, 1, 9, 4, 0, 0, 0, 1, 0})
	st := newStore(f)
	v := load(f, st, "s3cretvalue-0001")
	f.Fuzz(func(t *testing.T, sizes, junk []byte) {
		rec := &recorder{}
		s := NewSeal(rec, true, st)
		defer s.Close()
		var in recorder
		c := &client{Framer: http2.NewFramer(&in, nil)}
		c.enc = hpack.NewEncoder(&c.block)
		in.Write([]byte(http2.ClientPreface))
		var want []string
		for i := range 3 {
			m := register(t, s, Raw, Part{Value: v})
			id := uint32(2*i + 1)
			block := c.encode("a: same", fmt.Sprintf("n: %d", i), "authorization: Bearer "+m)
			c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block[:i+1]})
			c.WriteContinuation(id, true, block[i+1:])
			c.WriteData(id, true, []byte(m))
			want = append(want, fmt.Sprintf("HEADERS %d|a: same|n: %d|authorization: Bearer s3cretvalue-0001 (never indexed)", id, i),
				fmt.Sprintf("DATA %d %s", id, m))
		}
		text := []byte(in.String())
		for i := 0; len(text) > 0; i++ {
			n := len(text)
			if len(sizes) > 0 {
				n = min(n, int(sizes[i%len(sizes)])+1)
			}
			if _, err := s.Write(text[:n]); err != nil {
				t.Fatal(err)
			}
			text = text[n:]
		}
		checkPeer(t, rec, want...)
		before := len(rec.String())
		s.Write(junk)
		if strings.Contains(rec.String()[before:], "s3cret") {
			t.Error("a value was written for no marker")
		}
	})
}
