package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	coder "github.com/coder/websocket"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/secret"
)

const (
	socketKey = "dGhlIHNhbXBsZSBub25jZQ=="
	// socketHead asks for a WebSocket as RFC 6455 §1.3 does.
	socketHead = "GET /ws HTTP/1.1\r\nHost: good.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + socketKey + "\r\n"
)

func socketAccept(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// frame is one frame, written by hand. The lowest bit of first's mask is the
// opcode; masked frames have a key of which one byte is zero.
func frame(first byte, masked bool, payload string) string {
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
	if !masked {
		return string(b) + payload
	}
	b[1] |= 0x80
	key := [4]byte{0x37, 0xfa, 0, 0x3d}
	b = append(b, key[:]...)
	for i := range len(payload) {
		b = append(b, payload[i]^key[i&3])
	}
	return string(b)
}

// A heard is a frame as it was received.
type heard struct {
	first   byte
	key     [4]byte
	masked  bool
	payload string
}

// hear reads one frame.
func hear(r *bufio.Reader) (heard, error) {
	var h heard
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return h, err
	}
	h.first, h.masked = head[0], head[1]&0x80 != 0
	n := uint64(head[1] & 0x7f)
	var ext [8]byte
	switch n {
	case 126:
		io.ReadFull(r, ext[6:])
		n = binary.BigEndian.Uint64(ext[:])
	case 127:
		io.ReadFull(r, ext[:])
		n = binary.BigEndian.Uint64(ext[:])
	}
	if h.masked {
		io.ReadFull(r, h.key[:])
	}
	p := make([]byte, n)
	if _, err := io.ReadFull(r, p); err != nil {
		return h, err
	}
	for i := range p {
		p[i] ^= h.key[i&3]
	}
	h.payload = string(p)
	return h, nil
}

// hearAll joins frames to messages: "1:text", "2:binary", "8:…", "9:…" in
// order of their ends, to the end of the connection.
func hearAll(r *bufio.Reader) (said []string, frames []heard) {
	var op byte
	var text strings.Builder
	for {
		h, err := hear(r)
		if err != nil {
			if op != 0 {
				said = append(said, fmt.Sprintf("unfinished %d:%s", op, text.String()))
			}
			return said, frames
		}
		frames = append(frames, h)
		if h.first == 0x88 {
			return append(said, "8:"+h.payload), frames
		}
		switch code := h.first & 0xf; {
		case code >= 8:
			said = append(said, fmt.Sprintf("%d:%s", code, h.payload))
			continue
		case code != 0:
			op = code
		}
		text.WriteString(h.payload)
		if h.first&0x80 != 0 {
			said = append(said, fmt.Sprintf("%d:%s", op, text.String()))
			op = 0
			text.Reset()
		}
	}
}

// rawSocket makes good.test accept WebSockets and hand their connection to f.
func rawSocket(f func(c net.Conn, r *bufio.Reader, head http.Header)) option {
	return handler(func(rw http.ResponseWriter, r *http.Request) {
		c, buf, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n", socketAccept(r.Header.Get("Sec-WebSocket-Key")))
		f(c, buf.Reader, r.Header)
	})
}

// openSocket asks for a WebSocket by hand, extra being further header lines.
func (w *world) openSocket(extra string) raw1 {
	w.t.Helper()
	c := w.raw1()
	io.WriteString(c, socketHead+extra+"\r\n")
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil || resp.StatusCode != 101 || resp.Header.Get("Sec-WebSocket-Accept") != socketAccept(socketKey) {
		w.t.Fatalf("no WebSocket: %v %v", resp, err)
	}
	return c
}

// listening is an upstream that records what it hears, frame by frame.
func listening() (option, func() (said []string, frames []heard)) {
	type result struct {
		said   []string
		frames []heard
	}
	done := make(chan result, 1)
	return rawSocket(func(c net.Conn, r *bufio.Reader, _ http.Header) {
			defer func() { io.WriteString(c, frame(0x88, false, "")); io.Copy(io.Discard, r) }()
			said, frames := hearAll(r)
			done <- result{said, frames}
		}), func() ([]string, []heard) {
			select {
			case r := <-done:
				return r.said, r.frames
			case <-time.After(10 * time.Second):
				return []string{"the upstream's connection did not end"}, nil
			}
		}
}

// TestSocketPeers: two common libraries talk to each other as if nobody were
// between them, but that the guest never sees the value.
func TestSocketPeers(t *testing.T) {
	w := newWorld(t, "h1", handler(func(rw http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Authorization"); got != "Bearer "+value {
			t.Errorf("the handshake had %q", got)
		}
		if got := r.Header.Get("Sec-WebSocket-Extensions"); got != "" {
			t.Errorf("offered %q", got)
		}
		c, err := coder.Accept(rw, r, &coder.AcceptOptions{Subprotocols: []string{"v2"}, CompressionMode: coder.CompressionContextTakeover})
		if err != nil {
			return
		}
		c.SetReadLimit(-1)
		ctx := context.Background()
		for {
			kind, text, err := c.Read(ctx)
			if err != nil {
				return
			}
			switch string(text) {
			case "leak":
				m, _ := c.Writer(ctx, coder.MessageText)
				for i := range len(value) {
					io.WriteString(m, "<"[:(i+len(value)-1)/len(value)^1]+value[i:i+1])
				}
				m.Close()
			case "leak binary":
				c.Write(ctx, coder.MessageBinary, []byte("\x00\x20"+value+"\xff"))
			case "bye":
				c.Close(4001, "bye "+value)
				return
			default:
				c.Write(ctx, kind, text)
			}
		}
	}))
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c, resp, err := coder.Dial(ctx, "wss://good.test/ws", &coder.DialOptions{
		HTTPClient: w.client(), HTTPHeader: http.Header{"Authorization": {"Bearer " + placeholder}},
		Subprotocols: []string{"v1", "v2"}, CompressionMode: coder.CompressionContextTakeover,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	c.SetReadLimit(-1)
	if resp.Header.Get("Sec-WebSocket-Extensions") != "" || c.Subprotocol() != "v2" {
		t.Errorf("handshake is %v", resp.Header)
	}
	long := strings.Repeat("0123456789abcdef", 1<<16)
	for _, tt := range []struct {
		kind      coder.MessageType
		say, want string
	}{
		{coder.MessageText, "hello", "hello"},
		{coder.MessageText, "", ""},
		{coder.MessageBinary, "\x00\xff", "\x00\xff"},
		{coder.MessageText, long, long},
		{coder.MessageBinary, long, long},
		{coder.MessageText, "leak", "<" + placeholder},
		{coder.MessageBinary, "leak binary", "\x00\x20" + placeholder + strings.Repeat("*", len(value)-len(placeholder)) + "\xff"},
	} {
		if err := c.Write(ctx, tt.kind, []byte(tt.say)); err != nil {
			t.Fatal(err)
		}
		if tt.say == "leak binary" {
			tt.kind = coder.MessageBinary
		}
		kind, got, err := c.Read(ctx)
		if err != nil || kind != tt.kind || string(got) != tt.want {
			t.Fatalf("said %.20q, heard %v %.60q %v", tt.say, kind, got, err)
		}
	}
	pong := make(chan error, 1)
	go func() {
		pong <- c.Ping(ctx) // the answer comes while Read waits
		c.Write(ctx, coder.MessageText, []byte("after the ping"))
	}()
	if _, got, err := c.Read(ctx); string(got) != "after the ping" {
		t.Errorf("heard %q, %v", got, err)
	}
	if err := <-pong; err != nil {
		t.Errorf("ping: %v", err)
	}
	c.Write(ctx, coder.MessageText, []byte("bye"))
	_, _, err = c.Read(ctx)
	if e := (coder.CloseError{}); coder.CloseStatus(err) != 4001 {
		t.Errorf("closed with %v %v", err, e)
	}
	w.clean(err.Error())
	w.expect(audit.Substituted, policy.None)
	w.expect(audit.Scrubbed, policy.None)
	if n := len(w.found(audit.Aborted)); n > 0 {
		t.Errorf("%d events of an abort", n)
	}
}

// TestHandshakeRefused: nothing but a correct handshake changes the protocol
// of a connection with a secret's host. B9.
func TestHandshakeRefused(t *testing.T) {
	w := newWorld(t, "h1", rawSocket(func(c net.Conn, r *bufio.Reader, _ http.Header) { io.Copy(io.Discard, r) }))
	for name, head := range map[string]string{
		"other protocol":   strings.Replace(socketHead, "Upgrade: websocket", "Upgrade: x", 1),
		"one of several":   strings.Replace(socketHead, "Upgrade: websocket", "Upgrade: websocket, x", 1),
		"no key":           strings.Replace(socketHead, "Sec-WebSocket-Key", "X-Key", 1),
		"short key":        strings.Replace(socketHead, socketKey, "dGhlIHNhbXBsZQ==", 1),
		"version 12":       strings.Replace(socketHead, ": 13", ": 12", 1),
		"POST":             strings.Replace(socketHead, "GET", "POST", 1),
		"HTTP/1.0":         strings.Replace(socketHead, "HTTP/1.1", "HTTP/1.0", 1),
		"with a body":      socketHead + "Content-Length: 1\r\n",
		"key twice":        socketHead + "Sec-WebSocket-Key: " + socketKey + "\r\n",
		"not a connection": strings.Replace(socketHead, "Connection: Upgrade", "Connection: keep-alive", 1),
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			w.refused(w.raw1().send(head+"\r\nx"), 403, policy.UpgradeRefused)
		})
	}
	if n := len(w.good.Requests()); n > 0 {
		t.Errorf("upstream got %d requests", n)
	}
}

// TestHandshakeAnswer: only a 101 that is right in all parts opens the relay;
// behind any other nothing is read as frames. B9.
func TestHandshakeAnswer(t *testing.T) {
	good := "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: " + socketAccept(socketKey) + "\r\n"
	for name, tt := range map[string]struct {
		answer string
		status int
	}{
		"right":               {good, 101},
		"wrong accept":        {strings.Replace(good, "Accept: ", "Accept: x", 1), 502},
		"no accept":           {strings.Replace(good, "Accept: ", "Other: ", 1), 502},
		"other protocol":      {strings.Replace(good, "Upgrade: websocket", "Upgrade: x", 1), 502},
		"no Upgrade":          {strings.Replace(good, "Upgrade: websocket\r\n", "", 1), 502},
		"no Connection":       {strings.Replace(good, "Connection: Upgrade\r\n", "", 1), 502},
		"extension":           {good + "Sec-WebSocket-Extensions: permessage-deflate\r\n", 502},
		"subprotocol":         {good + "Sec-WebSocket-Protocol: v9\r\n", 502},
		"offered":             {good + "Sec-WebSocket-Protocol: v1\r\n", 101},
		"echoed in its place": {good + "Sec-WebSocket-Protocol: v1\r\nX-Echo: " + value + "\r\n", 101},
		"other answer":        {"HTTP/1.1 401 Who\r\nContent-Length: 5\r\nX-Echo: " + value + "\r\n", 401},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "h1", handler(func(rw http.ResponseWriter, r *http.Request) {
				c, buf, _ := http.NewResponseController(rw).Hijack()
				defer c.Close()
				io.WriteString(c, tt.answer+"\r\nhello"+value)
				io.Copy(io.Discard, buf)
			}))
			c := w.raw1()
			io.WriteString(c, socketHead+"Sec-WebSocket-Protocol: v1\r\n"+auth+"\r\n")
			c.SetDeadline(time.Now().Add(300 * time.Millisecond))
			all, _ := io.ReadAll(c.r)
			w.clean(string(all))
			if want := fmt.Sprintf("HTTP/1.1 %d ", tt.status); !strings.HasPrefix(string(all), want) {
				t.Errorf("answer is %.300q", all)
			}
			if tt.status == 502 {
				w.expect(audit.Refused, policy.UpstreamFailed)
			}
		})
	}
}

// What follows a handshake that was not agreed to is another request, judged
// as one.
func TestHandshakeThenRequest(t *testing.T) {
	w := newWorld(t, "h1")
	c := w.raw1()
	io.WriteString(c, socketHead+"\r\n"+"GET /echo HTTP/1.1\r\nHost: evil.test\r\n"+auth+"\r\n")
	if a := c.read(); a.status != 404 {
		t.Fatalf("the handshake: %d %v", a.status, a.err)
	}
	w.refused(c.read(), 421, policy.AuthorityMismatch)
}

// TestSocketFrames: what the upstream hears is what the guest has said, in
// every split, under keys of the boundary's own, one for each frame. B17, D5.
func TestSocketFrames(t *testing.T) {
	long := strings.Repeat("x", 70_000)
	said := frame(0x01, true, "fra") + frame(0x89, true, "ping") + frame(0x00, true, "") + frame(0x80, true, "gment") +
		frame(0x81, true, "one") + frame(0x82, true, "\x00\xff") + frame(0x81, true, "") + frame(0x82, true, long) +
		frame(0x01, true, "quoting $MSB_A") + frame(0x00, true, "PI_K") + frame(0x80, true, "EY") + frame(0x88, true, "\x03\xe8bye")
	want := []string{"9:ping", "1:fragment", "1:one", "2:\x00\xff", "1:", "2:" + long, "1:quoting " + placeholder, "8:\x03\xe8bye"}
	for _, size := range []int{1, 3, 7, 1000, len(said)} {
		upstream, result := listening()
		w := newWorld(t, "h1", upstream)
		c := w.openSocket("")
		for rest := said; rest != ""; rest = rest[min(size, len(rest)):] {
			if _, err := io.WriteString(c, rest[:min(size, len(rest))]); err != nil {
				t.Fatal(err)
			}
		}
		c.CloseWrite()
		got, frames := result()
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("pieces of %d: upstream heard %.300q", size, got)
		}
		keys := map[[4]byte]bool{}
		for _, f := range frames {
			keys[f.key] = true
		}
		if n := len(frames); len(keys) < n-n/1000-1 { // 32 bits may meet by chance
			t.Errorf("pieces of %d: %d frames have %d keys", size, n, len(keys))
		}
		e := w.expect(audit.Carried, policy.SurfaceOff)
		if e.Surface != "websocket" || e.Secret != "API_KEY" {
			t.Errorf("event is %+v", e)
		}
	}
}

// CloseWrite ends the guest's sending side.
func (c raw1) CloseWrite() error { return c.Conn.(interface{ CloseWrite() error }).CloseWrite() }

// TestSocketScrubbed: a value in what an upstream says becomes the
// placeholder, over frames and whatever the pieces. C2.
func TestSocketScrubbed(t *testing.T) {
	padded := placeholder + strings.Repeat("*", len(value)-len(placeholder))
	said := frame(0x01, false, "a "+value[:3]) + frame(0x89, false, "p "+value) + frame(0x00, false, value[3:9]) + frame(0x80, false, value[9:]+" b") +
		frame(0x02, false, "\x21"+value[:9]) + frame(0x80, false, value[9:]+"\xff") + frame(0x8a, false, value) +
		frame(0x81, false, "Basic "+b64("me:"+value)) + frame(0x88, false, "\x03\xe8"+value)
	want := []string{"9:p " + padded, "1:a " + placeholder + " b", "2:\x21" + padded + "\xff", "10:" + padded, "", "8:\x03\xe8" + padded}
	for _, size := range []int{1, 5, len(said)} {
		w := newWorld(t, "h1", rawSocket(func(c net.Conn, r *bufio.Reader, _ http.Header) {
			for rest := said; rest != ""; rest = rest[min(size, len(rest)):] {
				io.WriteString(c, rest[:min(size, len(rest))])
			}
			io.Copy(io.Discard, r)
		}))
		c := w.openSocket(auth)
		var all bytes.Buffer
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		go func() { time.Sleep(200 * time.Millisecond); io.WriteString(c, frame(0x88, true, "\x03\xe8")) }()
		got, frames := hearAll(bufio.NewReader(io.TeeReader(c.r, &all)))
		w.clean(all.String())
		if len(got) != len(want) {
			t.Fatalf("pieces of %d: heard %q", size, got)
		}
		for i := range want {
			if got[i] != want[i] && want[i] != "" || strings.Contains(got[i], b64("me:" + value)[4:40]) {
				t.Errorf("pieces of %d: heard %q, want %q", size, got[i], want[i])
			}
		}
		for _, f := range frames {
			if f.masked {
				t.Error("a frame for the guest is masked")
			}
		}
		w.expect(audit.Scrubbed, policy.None)
	}
}

// TestSocketLive: a frame goes on before its message has ended, but for what
// could begin a hit; and at the end of a message nothing is held back.
func TestSocketLive(t *testing.T) {
	step := make(chan string)
	w := newWorld(t, "h1", rawSocket(func(c net.Conn, r *bufio.Reader, _ http.Header) {
		for text := range step {
			io.WriteString(c, text)
		}
	}))
	defer close(step)
	c := w.openSocket("")
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	for i, tt := range []struct{ send, want string }{
		{frame(0x01, false, "first"), "first"},
		{frame(0x00, false, "then "+value[:4]), "then "},
		{frame(0x00, false, "no"), value[:4] + "no"},
		{"\x80\x0a" + "half", "half"}, // of a frame
		{"a frame"[:6], "a fram"},
		{frame(0x81, false, value[:5]), value[:5]},
		{frame(0x82, false, value[:6]), value[:6]},
	} {
		step <- tt.send
		if f, err := hear(c.r); err != nil || f.payload != tt.want {
			t.Fatalf("step %d: heard %q, %v", i, f.payload, err)
		}
	}
}

// TestSocketFaults: a side that breaks the protocol ends the WebSocket, and
// nothing after the fault is taken for frames. B17.
func TestSocketFaults(t *testing.T) {
	ending := func(code int) string { return fmt.Sprintf("8:%s", []byte{byte(code >> 8), byte(code)}) }
	for name, tt := range map[string]struct {
		said string
		code int
	}{
		"compressed":       {frame(0xc1, true, "x"), 1002},
		"reserved opcode":  {frame(0x83, true, "x"), 1002},
		"not masked":       {frame(0x81, false, "x"), 1002},
		"length 2^63":      {"\x82\xff\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", 1002},
		"long ping":        {frame(0x89, true, strings.Repeat("x", 126)), 1002},
		"not text":         {frame(0x81, true, "\xff"), 1007},
		"continuation":     {frame(0x80, true, "x"), 1002},
		"within a message": {frame(0x01, true, "x") + frame(0x81, true, "y"), 1002},
	} {
		t.Run(name, func(t *testing.T) {
			upstream, result := listening()
			w := newWorld(t, "h1", upstream)
			c := w.openSocket("")
			io.WriteString(c, tt.said+frame(0x81, true, "after"))
			got, _ := hearAll(c.r)
			if len(got) != 1 || !strings.HasPrefix(got[0], ending(tt.code)) {
				t.Errorf("guest heard %q", got)
			}
			up, _ := result()
			if s := fmt.Sprint(up); strings.Contains(s, "after") || !strings.Contains(s, ending(tt.code)) {
				t.Errorf("upstream heard %q", up)
			}
			w.expect(audit.Aborted, policy.MalformedRequest)
		})
	}
	t.Run("upstream", func(t *testing.T) {
		w := newWorld(t, "h1", rawSocket(func(c net.Conn, r *bufio.Reader, _ http.Header) {
			io.WriteString(c, frame(0x81, true, "masked "+value)+frame(0x81, false, "after"))
			io.Copy(io.Discard, r)
		}))
		c := w.openSocket("")
		got, _ := hearAll(c.r)
		if len(got) != 1 || !strings.HasPrefix(got[0], ending(1002)) {
			t.Errorf("guest heard %q", got)
		}
		w.expect(audit.Aborted, policy.UpstreamFailed)
	})
	t.Run("end without a word", func(t *testing.T) {
		w := newWorld(t, "h1", rawSocket(func(c net.Conn, r *bufio.Reader, _ http.Header) {
			io.WriteString(c, frame(0x01, false, "unfinished "+value[:9]))
		}))
		got, _ := hearAll(w.openSocket("").r)
		if fmt.Sprint(got) != "[unfinished 1:unfinished ]" {
			t.Errorf("guest heard %q", got)
		}
	})
}

// blocks makes a violation anywhere end the request.
func blocks(action secret.Action) option {
	return func(w *world) { w.cfg.OnViolation = secret.Violation{Action: action} }
}

// outOfScope makes no request one that may carry the value.
func outOfScope(w *world) {
	secrets(func(w *world) []*secret.Secret {
		s := w.secret("API_KEY", placeholder, value, "good.test", 443)
		s.Scopes = []secret.Scope{{Method: "*", Path: "/elsewhere"}}
		return []*secret.Secret{s}
	})(w)
}

// TestSocketBlocked: where a gate fails, an action of one's own ends the
// WebSocket at a placeholder, in the middle of the message, and says so. Text,
// binary and control frames alike.
func TestSocketBlocked(t *testing.T) {
	for name, said := range map[string]string{
		"text":     frame(0x01, true, "before "+placeholder[:4]) + frame(0x80, true, placeholder[4:]+" after"),
		"binary":   frame(0x82, true, "before "+placeholder+" after"),
		"ping":     frame(0x89, true, placeholder),
		"close":    frame(0x88, true, "\x03\xe8"+placeholder),
		"the next": frame(0x81, true, "fine") + frame(0x81, true, placeholder),
	} {
		t.Run(name, func(t *testing.T) {
			upstream, result := listening()
			w := newWorld(t, "h1", upstream, outOfScope, blocks(secret.BlockAndTerminate))
			c := w.openSocket("")
			io.WriteString(c, said+frame(0x81, true, "later"))
			got, _ := hearAll(c.r)
			if len(got) != 1 || !strings.HasPrefix(got[0], "8:\x03\xf0cutout: out_of_scope API_KEY: ") {
				t.Errorf("guest heard %q", got)
			}
			up, _ := result()
			if s := fmt.Sprint(up); strings.Contains(s, placeholder) || strings.Contains(s, "after") || strings.Contains(s, "later") || !strings.Contains(s, "8:\x03\xf0") {
				t.Errorf("upstream heard %q", up)
			}
			e := w.expect(audit.Aborted, policy.OutOfScope)
			if e.Surface != "websocket" || e.Secret != "API_KEY" {
				t.Errorf("event is %+v", e)
			}
			if ended := w.terminated(); len(ended) != 1 {
				t.Errorf("ended %v", ended)
			}
		})
	}
}

// TestSocketElsewhere: on a host of no secret a placeholder is seen as well.
func TestSocketElsewhere(t *testing.T) {
	w := newWorld(t, "h1", func(w *world) {
		w.cfg.Intercept = All
		w.cfg.OnViolation = secret.Violation{Action: secret.Passthrough, Hosts: []hostname.Pattern{must(hostname.ParsePattern("good.test"))}}
		other := w.secret("OTHER", "$MSB_OTHER", "another-value-of-the-tests", "other.test", 443)
		set := must(secret.NewSet([]*secret.Secret{other}))
		w.cfg.Secrets = func() *secret.Set { return set }
	}, rawSocket(func(c net.Conn, r *bufio.Reader, h http.Header) {
		if h.Get("Sec-WebSocket-Extensions") != "permessage-deflate" {
			io.WriteString(c, frame(0x88, false, ""))
		}
		for {
			f, err := hear(r)
			if err != nil {
				return
			}
			io.WriteString(c, frame(f.first, false, f.payload))
		}
	}))
	c := w.openSocket("Sec-WebSocket-Extensions: permessage-deflate\r\n")
	io.WriteString(c, frame(0x81, true, "my $MSB_OTHER"))
	if f, err := hear(c.r); err != nil || f.payload != "my $MSB_OTHER" {
		t.Errorf("heard %+v, %v", f, err)
	}
	w.expect(audit.Carried, policy.HostNotAllowed)
}

// A long message costs no memory.
func TestSocketLargeMessage(t *testing.T) {
	const size = 100 << 20
	w := newWorld(t, "h1", rawSocket(func(c net.Conn, r *bufio.Reader, _ http.Header) {
		c.Write([]byte("\x82\x7f\x00\x00\x00\x00\x06\x40\x00\x00"))
		io.Copy(c, io.LimitReader(zeroes{}, size))
		io.WriteString(c, frame(0x88, false, ""))
		io.Copy(io.Discard, r)
	}))
	c := w.openSocket("")
	wantFlat(t, 20<<20, func() {
		if _, err := io.CopyN(io.Discard, c.r, size); err != nil {
			t.Fatal(err)
		}
	})
}
