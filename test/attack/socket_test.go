package attack

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/coder/websocket"

	"github.com/cutoutdev/cutout/internal/secret"
)

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
