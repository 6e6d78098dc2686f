package attack

import (
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/net/http2"

	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/secret"
)

// B14, B15, B17, C13: too much of something. Each ends within bounds, and
// another connection of the guest's works as before.
var sectionFlood = join(floods(), webSockets(), []probe{
	{entry: "B15", name: "downloads that nobody reads", run: besides(unread), want: substituted, budget: 192 << 20},
	{entry: "B15", name: "heads that never end", run: besides(slowHeads), want: substituted, budget: 64 << 20},
	{entry: "B15", name: "a thousand refusals", run: besides(refusals), want: substituted, budget: 64 << 20, only: "h1"},
	{
		entry: "C13", name: "a gzip bomb", run: drained("/"), want: want{status: []int{0, 200, 502}, value: true}, budget: 64 << 20,
		change: func(b *boundary) {
			b.Answer(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Encoding", "gzip")
				z := gzip.NewWriter(w)
				io.CopyN(z, zeroes{}, 64<<20)
				io.WriteString(z, r.Header.Get("Authorization"))
				z.Close()
			})
		},
	},
	{
		entry: "C13", name: "10^5 near misses", run: echoed("/"), want: substituted, budget: 64 << 20,
		change: func(b *boundary) {
			b.Answer(func(w http.ResponseWriter, r *http.Request) {
				for range 100 {
					io.WriteString(w, strings.Repeat(V[:len(V)-1]+"_", 1000))
				}
				io.WriteString(w, r.Header.Get("Authorization"))
			})
		},
	},
	{
		entry: "C13", name: "endless headers", run: echoed("/"), want: want{status: []int{0, 502}, value: true},
		change: func(b *boundary) {
			b.Answer(func(w http.ResponseWriter, r *http.Request) {
				for i := range 2000 {
					w.Header().Set(fmt.Sprintf("X-%d", i), strings.Repeat("x", 1000))
				}
			})
		},
	},
})

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// besides runs an attack, leaves it as it is, and then makes an honest
// request on another connection.
func besides(attack func(*boundary) error) func(*boundary) outcome {
	return func(b *boundary) outcome {
		if err := attack(b); err != nil {
			return outcome{err: err}
		}
		return connect(target{}, "good.test")(b)
	}
}

// floods are B14: each is written until the boundary ends the connection, or
// all of it was taken.
func floods() []probe {
	get := []string{":method", "GET", ":scheme", "https", ":path", "/ok", ":authority", "good.test"}
	var out []probe
	for _, x := range []struct {
		name  string
		write func(*frames) error // an error is only of what must not work
	}{
		{"rapid reset", func(f *frames) error {
			for i := range uint32(20_000) {
				if err := errors.Join(f.Head(2*i+1, true, get...), f.WriteRSTStream(2*i+1, http2.ErrCodeCancel)); err != nil {
					return nil
				}
			}
			return nil
		}},
		{"CONTINUATION without end", func(f *frames) error {
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: f.Block(get...), EndStream: true})
			field := "\x00\x08x-filler\x7f\xe9\x06" + strings.Repeat("x", 1000) // not indexed
			for range 20_000 {
				if err := f.WriteContinuation(1, false, []byte(field)); err != nil {
					return nil
				}
			}
			return errors.New("20 MB of one head were taken")
		}},
		{"a bomb of indexed fields", func(f *frames) error {
			block := append([]byte(nil), f.Block(append(get, "x-bomb", strings.Repeat("x", 3000))...)...)
			indexed := block[len(block):]
			for range 16_000 {
				indexed = append(indexed, 0xbe) // the newest entry of the dynamic table
			}
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndStream: true})
			f.WriteContinuation(1, true, indexed)
			return nil
		}},
		{"PING", func(f *frames) error {
			for range 100_000 {
				if err := f.WritePing(false, [8]byte{}); err != nil {
					return nil
				}
			}
			return nil
		}},
		{"SETTINGS", func(f *frames) error {
			for range 100_000 {
				if err := f.WriteSettings(); err != nil {
					return nil
				}
			}
			return nil
		}},
		{"a thousand streams with no window", func(f *frames) error {
			f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
			for i := range uint32(1000) {
				if err := f.Head(2*i+1, true, ":method", "GET", ":scheme", "https", ":path", "/bytes?n=1000000", ":authority", "good.test"); err != nil {
					return nil
				}
			}
			return nil
		}},
	} {
		out = append(out, probe{
			entry: "B14", name: x.name, only: "h2", want: substituted, budget: 64 << 20,
			run: besides(func(b *boundary) error {
				c, err := b.Secure(target{})
				if err != nil {
					return err
				}
				b.T.Cleanup(func() { c.Close() })
				c.SetDeadline(time.Now().Add(5 * time.Second)) // for what neither ends nor goes on
				return x.write(b.frames(c))
			}),
		})
	}
	return out
}

// unread begins downloads and reads nothing.
func unread(b *boundary) error {
	for range 50 {
		c, err := b.Secure(target{})
		if err != nil {
			return err
		}
		b.T.Cleanup(func() { c.Close() })
		if b.Protocol == "h1" {
			io.WriteString(c, "GET /bytes?n=100000000 HTTP/1.1\r\nHost: good.test\r\n\r\n")
			continue
		}
		f := b.frames(c)
		f.WriteWindowUpdate(0, 1<<30)
		for id := uint32(1); id < 20; id += 2 {
			f.Head(id, true, ":method", "GET", ":scheme", "https", ":path", "/bytes?n=100000000", ":authority", "good.test")
		}
	}
	return nil
}

// slowHeads begins a hundred heads and goes away from the keyboard.
func slowHeads(b *boundary) error {
	for range 100 {
		c, err := b.Secure(target{})
		if err != nil {
			return err
		}
		b.T.Cleanup(func() { c.Close() })
		if b.Protocol == "h1" {
			io.WriteString(c, "GET / HTTP/1.1\r\nHost: good")
		} else {
			f := b.frames(c)
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: f.Block(":method", "GET")})
		}
	}
	return nil
}

func refusals(b *boundary) error {
	c, err := b.Secure(target{})
	if err != nil {
		return err
	}
	defer c.Close()
	for i, o := range b.raw(c, strings.Repeat(getGood+"Title: "+P+"\r\n\r\n", 1000), 1000) {
		if o.reason() != policy.SurfaceOff {
			return fmt.Errorf("refusal %d: %d %v", i, o.status, o.err)
		}
	}
	return nil
}

const socketHead = "GET /ws HTTP/1.1\r\nHost: good.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

// webSockets are B17: what follows a verified 101. No part of a message that
// is refused goes on.
func webSockets() []probe {
	message := func(first byte, payload string) string { return masked(first, uint64(len(payload)), payload) }
	var out []probe
	for _, x := range []struct {
		name, text, want string
	}{
		{"fragmented text, the placeholder over all frames", fragments(P) + message(0x88, "\x03\xe8"), V},
		{"2^63 bytes", masked(0x81, 1<<63, "x"), ""},
		{"not masked", "\x81\x05hello", ""},
		{"compressed, though nobody offered", message(0xc1, P), ""},
		{"a continuation of nothing", message(0x80, P), ""},
		{"text within text", message(0x01, "a") + message(0x81, P), ""},
		{"a control frame of 126 bytes", message(0x89, strings.Repeat("x", 126)), ""},
		{"an opcode that nobody knows", message(0x83, P), ""},
		{"not UTF-8", message(0x81, "\xff\xfe"), ""},
	} {
		out = append(out, probe{
			entry: "B17", name: x.name, only: "h1", want: want{status: []int{101}},
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
				head := make([]byte, 12)
				if _, err := io.ReadFull(c, head); err != nil || string(head) != "HTTP/1.1 101" {
					return outcome{text: string(head), err: err}
				}
				io.WriteString(c, x.text)
				rest, err := io.ReadAll(c) // the boundary ends what it refuses, the server what is closed
				if err != nil {
					err = fmt.Errorf("the connection did not end: %w", err)
				}
				return b.got(outcome{101, string(head) + string(rest), err})
			},
			check: func(b *boundary) error {
				b.mu.Lock()
				defer b.mu.Unlock()
				if got := strings.Join(b.messages, "|"); got != x.want {
					return fmt.Errorf("the upstream got %q, want %q", got, x.want)
				}
				return nil
			},
		})
	}
	return out
}

// masked is a frame with a key of zeroes that claims n bytes.
func masked(first byte, n uint64, payload string) string {
	b := []byte{first}
	switch {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0xfe), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0xff), n)
	}
	return string(b) + "\x00\x00\x00\x00" + payload
}

// fragments is s as a text message of one byte a frame.
func fragments(s string) string {
	var out strings.Builder
	for i := range len(s) {
		first := byte(0)
		if i == 0 {
			first = 1
		}
		if i == len(s)-1 {
			first |= 0x80
		}
		out.WriteString(masked(first, 1, s[i:i+1]))
	}
	return out.String()
}

// takeDown is a server that keeps the messages of its WebSockets.
func (b *boundary) takeDown(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer c.CloseNow()
	for {
		_, message, err := c.Read(r.Context())
		if err != nil {
			return
		}
		b.mu.Lock()
		b.messages = append(b.messages, string(message))
		b.mu.Unlock()
	}
}
