package guest

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cutoutdev/cutout/internal/guest/wire"
)

// frame builds a frame by hand, as a hostile agent would.
func frame(call uint32, kind uint8, channel uint8, payload string) []byte {
	b := binary.BigEndian.AppendUint32(nil, call)
	b = append(b, kind, channel)
	b = binary.BigEndian.AppendUint16(b, uint16(len(payload)))
	return append(b, payload...)
}

const (
	kindData = 32
	kindEnd  = 33
	kindStop = 34
)

func message(call uint32, kind wire.Kind, v any) []byte {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return frame(call, uint8(kind), 0, string(body))
}

var hello = message(0, wire.KindHello, wire.Hello{Version: wire.Version})

// hostile connects a client to an agent that is the test. What the client
// sends is read and forgotten.
func hostile(t *testing.T, first []byte) (context.Context, *Client, net.Conn, error) {
	t.Helper()
	before := runtime.NumGoroutine()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	a, b := net.Pipe()
	drained := make(chan struct{})
	go func() { io.Copy(io.Discard, b); close(drained) }()
	go b.Write(first)
	c, err := Connect(ctx, a)
	t.Cleanup(func() {
		if c != nil {
			c.Close()
		}
		b.Close()
		<-drained
		cancel()
		for range 200 {
			if runtime.NumGoroutine() <= before {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
		buf := make([]byte, 1<<16)
		t.Errorf("goroutines left:\n%s", buf[:runtime.Stack(buf, true)])
	})
	return ctx, c, b, err
}

func TestConnectRefuses(t *testing.T) {
	for name, first := range map[string][]byte{
		"no hello":        message(1, wire.KindReply, wire.Reply{}),
		"another version": message(0, wire.KindHello, wire.Hello{Version: wire.Version + 1}),
		"no version":      message(0, wire.KindHello, struct{}{}),
		"a host's kind":   message(1, wire.KindStart, struct{}{}),
		"noise":           []byte("Kernel panic - not syncing: Attempted to kill init!"),
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, _, err := hostile(t, first); err == nil {
				t.Fatal("connected")
			}
		})
	}
	t.Run("silence", func(t *testing.T) {
		a, b := net.Pipe()
		defer b.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
		defer cancel()
		if _, err := Connect(ctx, a); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
	})
	t.Run("gone", func(t *testing.T) {
		a, b := net.Pipe()
		b.Close()
		if _, err := Connect(context.Background(), a); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatal(err)
		}
	})
}

// A breach ends the client and every call with it, at once (E3).
func TestBreachEndsEverything(t *testing.T) {
	for name, frames := range map[string][]byte{
		"second hello":             hello,
		"reply to nothing":         message(9, wire.KindReply, wire.Reply{}),
		"reply to a command":       message(1, wire.KindReply, wire.Reply{}),
		"exit of a request":        message(2, wire.KindExit, wire.Exit{}),
		"exit of nothing":          message(7, wire.KindExit, wire.Exit{}),
		"exit twice":               append(message(1, wire.KindExit, wire.Exit{}), message(1, wire.KindExit, wire.Exit{})...),
		"status 256":               message(1, wire.KindExit, wire.Exit{Code: 256}),
		"status -1":                message(1, wire.KindExit, wire.Exit{Code: -1}),
		"a host's message":         message(1, wire.KindSignal, wire.SignalRequest{Number: 9}),
		"data on stdin":            bytes.Repeat(frame(3, kindData, wire.Stdin, "x"), 1),
		"flood beyond the window":  bytes.Repeat(frame(1, kindData, wire.Stdout, strings.Repeat("x", 60<<10)), 5),
		"message without an end":   bytes.Repeat(frame(1, uint8(wire.KindExit|wire.More), 0, strings.Repeat(" ", 60<<10)), 2),
		"exit that is no object":   frame(1, uint8(wire.KindExit), 0, `"x"`),
		"exit with a wide integer": frame(1, uint8(wire.KindExit), 0, `{"Code":1e99}`),
	} {
		t.Run(name, func(t *testing.T) {
			ctx, c, agent, err := hostile(t, hello)
			if err != nil {
				t.Fatal(err)
			}
			p, err := c.Start(ctx, Command{Args: []string{"x"}}) // call 1
			if err != nil {
				t.Fatal(err)
			}
			pinged := make(chan error, 1)
			go func() { _, err := c.Ping(ctx); pinged <- err }() // call 2
			for {
				c.mu.Lock()
				last := c.last
				c.mu.Unlock()
				if last == 2 {
					break
				}
				runtime.Gosched()
			}
			go agent.Write(frames)
			select {
			case <-c.Done():
			case <-ctx.Done():
				t.Fatal("the client goes on")
			}
			if err := <-pinged; err == nil {
				t.Error("the request succeeded")
			}
			if _, err := io.Copy(io.Discard, p.Stdout); err == nil {
				t.Error("stdout has an end")
			}
			if exit, err := p.Wait(ctx); err == nil && name != "exit twice" {
				t.Errorf("the command ended: %v", exit)
			}
			if _, err := c.Start(ctx, Command{Args: []string{"x"}}); err == nil {
				t.Error("a dead client starts commands")
			}
		})
	}
}

// An agent that says nothing holds nobody beyond the context.
func TestSilentAgent(t *testing.T) {
	ctx, c, _, err := hostile(t, hello)
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.Start(ctx, Command{Args: []string{"x"}})
	if err != nil {
		t.Fatal(err)
	}
	for name, call := range map[string]func(context.Context) error{
		"ping":      func(ctx context.Context) error { _, err := c.Ping(ctx); return err },
		"configure": func(ctx context.Context) error { return c.Configure(ctx, Config{}) },
		"time":      func(ctx context.Context) error { return c.SetTime(ctx, time.Now()) },
		"stat":      func(ctx context.Context) error { _, err := c.Stat(ctx, "/"); return err },
		"shutdown":  c.Shutdown,
		"wait":      func(ctx context.Context) error { _, err := p.Wait(ctx); return err },
		"put":       func(ctx context.Context) error { return c.PutTar(ctx, "/", bytes.NewReader(make([]byte, 1<<20))) },
		"get":       func(ctx context.Context) error { return c.GetTar(ctx, "/", io.Discard) },
	} {
		short, cancel := context.WithTimeout(ctx, 30*time.Millisecond)
		if err := call(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
	}
}

// The guest's text cannot drive the host's terminal (C11).
func TestTextOfTheGuest(t *testing.T) {
	ctx, c, agent, err := hostile(t, hello)
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.Start(ctx, Command{Args: []string{"x"}})
	if err != nil {
		t.Fatal(err)
	}
	evil := "\x1b]0;owned\a\r\u202e\u009b31m" + strings.Repeat("é", 5000)
	go agent.Write(message(1, wire.KindExit, wire.Exit{Code: 127, NotFound: true, Reason: evil}))
	exit, err := p.Wait(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(exit.Reason, "?]0;owned????31m") || len(exit.Reason) > 2<<10 {
		t.Errorf("reason: %q", exit.Reason)
	}
	go agent.Write(message(2, wire.KindReply, wire.Reply{Error: evil}))
	if _, err := c.Stat(ctx, "/"); err == nil || strings.ContainsAny(err.Error(), "\x1b\a\r\u202e\u009b") {
		t.Errorf("error: %q", err)
	}
}

// Shutdown is done when the guest is gone, with or without a word.
func TestShutdown(t *testing.T) {
	ctx, c, agent, err := hostile(t, hello)
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(20*time.Millisecond, func() { agent.Close() })
	if err := c.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
}

// Roots cross only if the image has none.
func TestConfigureSendsRootsOnDemand(t *testing.T) {
	for name, need := range map[string]bool{"image with roots": false, "image without": true} {
		t.Run(name, func(t *testing.T) {
			a, b := net.Pipe()
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			var got []wire.Kind
			link := wire.NewLink(b, 1<<20)
			go link.Send(context.Background(), 0, wire.KindHello, wire.Hello{Version: wire.Version})
			go link.Run(func(m wire.Message) error {
				link.Open(m.Call, nil, nil)
				got = append(got, m.Kind)
				if m.Kind == wire.KindConfigure && bytes.Contains(m.Body, []byte("Uk9PVFM")) { // ROOTS
					t.Error("roots sent unasked")
				}
				return link.Send(context.Background(), m.Call, wire.KindReply, wire.Reply{NeedRoots: need && m.Kind == wire.KindConfigure})
			})
			c, err := Connect(ctx, a)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Configure(ctx, Config{Roots: []byte("ROOTS"), CA: []byte("CA")}); err != nil {
				t.Fatal(err)
			}
			c.Close()
			link.Close()
			if sent := len(got) == 2; sent != need {
				t.Errorf("messages: %v", got)
			}
		})
	}
}

// FuzzAgent gives a client with calls under way arbitrary bytes: everything
// must end, with an error, and nothing panic.
func FuzzAgent(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(message(1, wire.KindExit, wire.Exit{Code: 1}))
	f.Add(append(frame(1, kindData, wire.Stdout, "out"), frame(1, kindEnd, wire.Stdout, "")...))
	f.Add(append(message(2, wire.KindReply, wire.Reply{Error: "no"}), frame(1, kindStop, wire.Stdin, "")...))
	f.Fuzz(func(t *testing.T, data []byte) {
		ctx := context.Background()
		s := &script{start: make(chan struct{}), r: bytes.NewReader(append(bytes.Clone(hello), data...)), after: len(hello)}
		c, err := Connect(ctx, s)
		if err != nil {
			t.Fatal(err)
		}
		p, err := c.Start(ctx, Command{Args: []string{"x"}})
		if err != nil {
			t.Fatal(err)
		}
		close(s.start)
		c.Ping(ctx) // ends with the link at the latest
		n, _ := io.Copy(io.Discard, p.Stdout)
		m, _ := io.Copy(io.Discard, p.Stderr)
		if n+m > int64(len(data)) {
			t.Fatalf("%d bytes of output", n+m)
		}
		p.Wait(ctx)
		<-c.Done()
		if c.Err() == nil {
			t.Fatal("no error at the end")
		}
	})
}

// script reads r, holding back what comes after so many bytes until started,
// and takes all writes.
type script struct {
	start chan struct{}
	after int
	r     *bytes.Reader
}

func (s *script) Read(p []byte) (int, error) {
	if s.after > 0 {
		p = p[:min(len(p), s.after)]
		s.after -= len(p)
	} else {
		<-s.start
	}
	return s.r.Read(p)
}

func (s *script) Write(p []byte) (int, error) { return len(p), nil }
func (s *script) Close() error                { return nil }
