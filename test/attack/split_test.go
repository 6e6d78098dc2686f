package attack

import (
	"fmt"
	"io"
	"strings"

	"golang.org/x/net/http2"

	"github.com/cutoutdev/cutout/internal/secret"
)

// D5: a placeholder that is cut at each of its bytes, by whatever cuts it, is
// the same as whole.
var sectionSplit = []probe{
	{entry: "D5", name: "segments and records, in a header, at every byte", only: "h1", run: cut(cutHead), want: substituted, check: everyCut("head")},
	{entry: "D5", name: "chunks, at every byte", only: "h1", change: inBodies, run: cut(cutChunks), want: substituted, check: everyCut("body")},
	{entry: "D5", name: "writes of a known length, at every byte", only: "h1", change: inBodies, run: cut(cutFixed), want: substituted, check: everyCut("body")},
	{entry: "D5", name: "DATA, at every byte", only: "h2", change: inBodies, run: cut2(cutData), want: substituted, check: everyCut("body")},
	{entry: "D5", name: "DATA with padding, at every byte", only: "h2", change: inBodies, run: cut2(cutPadded), want: substituted, check: everyCut("body")},
	{entry: "D5", name: "CONTINUATION, at every byte", only: "h2", run: cutBlocks, want: substituted, check: everyCut("head")},
	{
		entry: "D5", name: "frames of a WebSocket, at every byte", only: "h1", want: wantStatus(101),
		change: func(b *boundary) {
			b.Secret.Surfaces = &secret.Surfaces{Header: true, WebSocket: true}
			b.Answer(b.takeDown)
		},
		run: func(b *boundary) outcome {
			c, err := b.Secure(target{})
			if err != nil {
				return outcome{err: err}
			}
			defer c.Close()
			io.WriteString(c, socketHead)
			for i := 1; i < len(P); i++ {
				io.WriteString(c, masked(0x01, uint64(i), P[:i])+masked(0x89, 0, "")+masked(0x80, uint64(len(P)-i), P[i:]))
			}
			io.WriteString(c, masked(0x88, 2, "\x03\xe8"))
			all, err := io.ReadAll(c)
			if !strings.HasPrefix(string(all), "HTTP/1.1 101") {
				return outcome{text: string(all), err: err}
			}
			return b.got(outcome{101, string(all), err})
		},
		check: func(b *boundary) error {
			b.mu.Lock()
			defer b.mu.Unlock()
			for _, m := range b.messages {
				if m != V {
					return fmt.Errorf("the upstream got the message %q", m)
				}
			}
			if n := len(b.messages); n != len(P)-1 {
				return fmt.Errorf("the upstream got %d messages", n)
			}
			return nil
		},
	},
}

// cut makes a request for each place in which the placeholder may be cut, all
// on one connection.
func cut(write func(w io.Writer, head, tail string)) func(*boundary) outcome {
	return func(b *boundary) outcome {
		c, err := b.Secure(target{})
		if err != nil {
			return outcome{err: err}
		}
		defer c.Close()
		var o outcome
		for i := 1; i < len(P); i++ {
			go write(c, P[:i], P[i:])
			if o = b.raw(c, "", 1)[0]; o.status != 200 {
				return o
			}
		}
		return o
	}
}

func cutHead(w io.Writer, head, tail string) {
	io.WriteString(w, getGood+"Authorization: Bearer "+head)
	io.WriteString(w, tail+"\r\n\r\n")
}

func cutChunks(w io.Writer, head, tail string) {
	fmt.Fprintf(w, postGood+"Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n", len(head), head, len(tail), tail)
}

func cutFixed(w io.Writer, head, tail string) {
	fmt.Fprintf(w, postGood+"Content-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", len(head+tail), head)
	io.WriteString(w, tail)
}

// cut2 is cut over HTTP/2.
func cut2(write func(f *frames, id uint32, head, tail string)) func(*boundary) outcome {
	return func(b *boundary) outcome {
		c, err := b.Secure(target{})
		if err != nil {
			return outcome{err: err}
		}
		defer c.Close()
		f := b.frames(c)
		var o outcome
		for i := 1; i < len(P); i++ {
			id := uint32(2*i - 1)
			write(f, id, P[:i], P[i:])
			if o = f.outcome(id); o.status != 200 {
				return o
			}
		}
		return o
	}
}

func (f *frames) post(id uint32) {
	f.Head(id, false, ":method", "POST", ":scheme", "https", ":path", "/echo", ":authority", "good.test", "content-type", "text/plain")
}

func cutData(f *frames, id uint32, head, tail string) {
	f.post(id)
	f.WriteData(id, false, []byte(head))
	f.WriteData(id, true, []byte(tail))
}

func cutPadded(f *frames, id uint32, head, tail string) {
	f.post(id)
	f.WriteDataPadded(id, false, []byte(head), make([]byte, 200))
	f.WriteData(id, false, nil)
	f.WriteDataPadded(id, true, []byte(tail), make([]byte, 1))
}

// cutBlocks uses a connection for each cut: on one of them HPACK would make
// the field a number after its first use.
func cutBlocks(b *boundary) outcome {
	var o outcome
	for i := 1; i < len(P); i++ {
		c, err := b.Secure(target{})
		if err != nil {
			return outcome{err: err}
		}
		f := b.frames(c)
		block := f.Block(":method", "GET", ":scheme", "https", ":path", "/echo", ":authority", "good.test", "authorization", bearer)
		at := len(block) - i // the field is the last one
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:at], EndStream: true})
		f.WriteContinuation(1, true, block[at:])
		o = f.outcome(1)
		c.Close()
		if o.status != 200 {
			return o
		}
	}
	return o
}

// everyCut checks that the upstream got the value once for each place.
func everyCut(where string) func(*boundary) error {
	return func(b *boundary) error {
		n := 0
		for _, r := range b.Good.Requests() {
			if where == "head" && r.Header.Get("Authorization") == "Bearer "+V || where == "body" && string(r.Body) == V {
				n++
			}
		}
		if n != len(P)-1 {
			return fmt.Errorf("%d of %d requests arrived as they should: %.500s", n, len(P)-1, b.Received())
		}
		return nil
	}
}
