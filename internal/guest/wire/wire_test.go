package wire

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"
)

// pair is two links to each other; each handles messages with the functions
// given.
func pair(t *testing.T, host, guest func(Message) error) (*Link, *Link) {
	t.Helper()
	noLeak(t)
	a, b := net.Pipe()
	h, g := NewLink(a, 64<<10), NewLink(b, 3<<20)
	ended := make(chan struct{}, 2)
	for _, end := range []struct {
		l      *Link
		handle func(Message) error
	}{{h, host}, {g, guest}} {
		handle := end.handle
		if handle == nil {
			handle = func(m Message) error { t.Errorf("unexpected message %d", m.Kind); return nil }
		}
		go func() { end.l.Run(handle); ended <- struct{}{} }()
	}
	t.Cleanup(func() {
		h.Close()
		g.Close()
		<-ended
		<-ended
	})
	return h, g
}

// noLeak fails the test if goroutines outlive it.
func noLeak(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		for range 100 {
			if runtime.NumGoroutine() <= before {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		buf := make([]byte, 1<<16)
		t.Errorf("%d goroutines, %d before\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
	})
}

// raw is a link whose peer is a test that writes frames by hand.
func raw(t *testing.T, handle func(Message) error) (*Link, net.Conn, <-chan error) {
	t.Helper()
	noLeak(t)
	a, b := net.Pipe()
	l := NewLink(a, 64<<10)
	ended := make(chan error, 1)
	go func() { ended <- l.Run(handle) }()
	t.Cleanup(func() { b.Close(); l.Close() })
	return l, b, ended
}

func frame(call uint32, kind Kind, channel uint8, payload string) []byte {
	b := make([]byte, headerSize, headerSize+len(payload))
	header{call: call, kind: kind &^ More, more: kind&More != 0, channel: channel, length: len(payload)}.put(b)
	return append(b, payload...)
}

func credit(n uint32) string { return string(binary.BigEndian.AppendUint32(nil, n)) }

func TestStreamCarriesEverythingInOrder(t *testing.T) {
	h, g := pair(t, nil, nil)
	ins, _, _ := h.Open(1, []uint8{Stdout}, nil)
	_, outs, _ := g.Open(1, nil, []uint8{Stdout})
	want := make([]byte, 5*Window+12345)
	rand.Read(want)
	go func() {
		outs[0].Write(want[:100])
		outs[0].Write(want[100:70000])
		outs[0].ReadFrom(bytes.NewReader(want[70000:]))
		outs[0].Close()
	}()
	var got bytes.Buffer
	head := make([]byte, 1000)
	if _, err := io.ReadFull(ins[0], head); err != nil {
		t.Fatal(err)
	}
	got.Write(head)
	if _, err := ins[0].WriteTo(&got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Fatal("the stream was changed")
	}
	kept := func() int { return h.halves() + g.halves() }
	for end := time.Now().Add(5 * time.Second); kept() != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("channels that are over are kept")
		}
	}
}

// halves counts the halves of channels that l knows.
func (l *Link) halves() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.in) + len(l.out)
}

func TestStalledChannelHoldsUpNothingElse(t *testing.T) {
	got := make(chan Kind, 1)
	h, g := pair(t, func(m Message) error { got <- m.Kind; return nil }, nil)
	ins, _, _ := h.Open(1, []uint8{Stdout, Stderr}, nil)
	_, outs, _ := g.Open(1, nil, []uint8{Stdout, Stderr})
	stalled := make(chan error, 1)
	go func() {
		_, err := outs[0].Write(make([]byte, 2*Window)) // nobody reads
		stalled <- err
	}()
	go func() {
		outs[1].Write([]byte("still here"))
		outs[1].Close()
	}()
	if b, err := io.ReadAll(ins[1]); string(b) != "still here" || err != nil {
		t.Fatalf("other channel: %q, %v", b, err)
	}
	if err := g.Send(context.Background(), 1, KindExit, Exit{Code: 3}); err != nil {
		t.Fatal(err)
	}
	if k := <-got; k != KindExit {
		t.Fatalf("message %d", k)
	}
	select {
	case err := <-stalled:
		t.Fatalf("a write went beyond the window: %v", err)
	default:
	}
	ins[0].Close()
	if err := <-stalled; err != io.ErrClosedPipe {
		t.Fatalf("write after the reader has gone: %v", err)
	}
}

func TestLongMessage(t *testing.T) {
	var got StartRequest
	done := make(chan struct{})
	h, _ := pair(t, nil, func(m Message) error {
		defer close(done)
		return m.Decode(&got)
	})
	want := StartRequest{Args: [][]byte{bytes.Repeat([]byte{0xff, 'x', 0xfe}, 300_000)}}
	if err := h.Send(context.Background(), 1, KindStart, want); err != nil {
		t.Fatal(err)
	}
	<-done
	if !bytes.Equal(got.Args[0], want.Args[0]) {
		t.Fatal("the argument was changed")
	}
}

func TestStreamCutOffIsNoEnd(t *testing.T) {
	l, peer, _ := raw(t, nil)
	ins, _, _ := l.Open(1, []uint8{Stdout}, nil)
	go func() {
		peer.Write(frame(1, kindData, Stdout, "half"))
		peer.Close()
	}()
	b, err := io.ReadAll(ins[0])
	if string(b) != "half" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("got %q, %v", b, err)
	}
}

// A peer that breaks the protocol ends the link, whatever it sends (E3).
func TestViolations(t *testing.T) {
	full := strings.Repeat("x", maxPayload)
	for name, frames := range map[string][][]byte{
		"kind 0":                      {frame(1, 0, 0, "")},
		"kind between":                {frame(1, lastMessage+1, 0, "")},
		"kind above":                  {frame(1, lastStream+1, 0, "")},
		"message on a channel":        {frame(1, KindReply, 1, "{}")},
		"hello on a call":             {frame(1, KindHello, 0, "{}")},
		"reply on no call":            {frame(0, KindReply, 0, "{}")},
		"data on no call":             {frame(0, kindData, Stdout, "x")},
		"data on a call to come":      {frame(2, kindData, Stdout, "x")},
		"end on a call to come":       {frame(1<<32-1, kindEnd, Stdout, "")},
		"data on channel 3":           {frame(1, kindData, channels, "x")},
		"data in parts":               {frame(1, kindData|More, Stdout, "x")},
		"empty data":                  {frame(1, kindData, Stdout, "")},
		"end with a payload":          {frame(1, kindEnd, Stdout, "x")},
		"window of 3 bytes":           {frame(1, kindWindow, Stdin, "abc")},
		"window of nothing":           {frame(1, kindWindow, Stdin, credit(0))},
		"window beyond what was sent": {frame(1, kindWindow, Stdin, credit(1))},
		"window that overflows":       {frame(1, kindWindow, Stdin, credit(1<<32-1))},
		"data beyond the window": {
			frame(1, kindData, Stdout, full), frame(1, kindData, Stdout, full), frame(1, kindData, Stdout, full),
			frame(1, kindData, Stdout, full), frame(1, kindData, Stdout, full),
		},
		"message beyond the limit":   {frame(1, KindReply|More, 0, full), frame(1, KindReply, 0, full)},
		"empty parts":                {frame(1, KindReply|More, 0, "")},
		"message within a message":   {frame(1, KindReply|More, 0, "x"), frame(2, KindReply, 0, "x")},
		"data within a message":      {frame(1, KindReply|More, 0, "x"), frame(1, kindData, Stdout, "x")},
		"JSON that is none":          {frame(1, KindReply, 0, "{")},
		"JSON of the wrong kind":     {frame(1, KindReply, 0, `{"Error":5}`)},
		"message that goes on after": {frame(1, KindReply, 0, "{}"), frame(1, 99, 0, "")},
	} {
		t.Run(name, func(t *testing.T) {
			l, peer, ended := raw(t, func(m Message) error { var r Reply; return m.Decode(&r) })
			l.Open(1, []uint8{Stdout, Stderr}, []uint8{Stdin})
			for _, f := range frames {
				peer.SetWriteDeadline(time.Now().Add(5 * time.Second))
				peer.Write(f)
			}
			select {
			case err := <-ended:
				if !errors.Is(err, ErrViolation) {
					t.Fatalf("ended with %v", err)
				}
			case <-time.After(5 * time.Second):
				t.Fatal("the link goes on")
			}
		})
	}
}

// Frames of a call that is over may still be on their way.
func TestLateFramesAreIgnored(t *testing.T) {
	got := make(chan struct{})
	l, peer, _ := raw(t, func(Message) error { close(got); return nil })
	l.Open(7, []uint8{Stdout}, nil)
	l.Drop(7)
	go func() {
		peer.Write(frame(7, kindData, Stdout, "late"))
		peer.Write(frame(7, kindWindow, Stdin, credit(9)))
		peer.Write(frame(7, kindEnd, Stdout, ""))
		peer.Write(frame(7, KindReply, 0, "{}"))
	}()
	select {
	case <-got:
	case <-time.After(5 * time.Second):
		t.Fatal("the link does not go on")
	}
}

// A peer that reads nothing makes senders wait, within bounds and their
// context, and Close frees all of them.
func TestPeerThatReadsNothing(t *testing.T) {
	l, _, _ := raw(t, nil)
	_, outs, _ := l.Open(1, nil, []uint8{Stdin})
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	big := StartRequest{Args: [][]byte{make([]byte, 100<<10)}}
	var err error
	for n := 0; err == nil; n++ {
		if n > 100 {
			t.Fatal("unbounded queue")
		}
		err = l.Send(ctx, 2, KindStart, big)
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("send: %v", err)
	}
	blocked := make(chan error, 2)
	go func() { _, err := outs[0].Write([]byte("x")); blocked <- err }()
	go func() { blocked <- l.Send(context.Background(), 2, KindStart, big) }()
	time.Sleep(20 * time.Millisecond)
	l.Close()
	for range 2 {
		if err := <-blocked; !errors.Is(err, ErrClosed) {
			t.Fatalf("blocked sender: %v", err)
		}
	}
}

// FuzzLink gives a link with an open call arbitrary bytes: it must end with an
// error, and the channel must not hold more than its window.
func FuzzLink(f *testing.F) {
	f.Add(frame(0, KindHello, 0, `{"Version":1}`))
	f.Add(append(frame(1, kindData, Stdout, "abc"), frame(1, kindEnd, Stdout, "")...))
	f.Add(append(frame(1, KindReply|More, 0, `{"Err`), frame(1, KindReply, 0, `or":"x"}`)...))
	f.Add(frame(1, kindWindow, Stdin, credit(1)))
	f.Add(frame(1, kindStop, Stdin, ""))
	f.Fuzz(func(t *testing.T, data []byte) {
		l := NewLink(&script{r: bytes.NewReader(data)}, 4<<10)
		ins, outs, err := l.Open(1, []uint8{Stdout, Stderr}, []uint8{Stdin})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Run(func(m Message) error { var r Reply; return m.Decode(&r) }); err == nil {
			t.Fatal("no error at the end")
		}
		for _, in := range ins {
			if in.used > Window || len(in.ring) > Window {
				t.Fatalf("%d bytes held", in.used)
			}
			if n, _ := io.Copy(io.Discard, in); n > int64(len(data)) {
				t.Fatalf("%d bytes came out", n)
			}
		}
		if outs[0].credit > Window {
			t.Fatalf("window of %d", outs[0].credit)
		}
		if _, err := outs[0].Write([]byte("x")); err == nil {
			t.Fatal("a dead link took bytes")
		}
	})
}

// script is a connection that reads from r and takes all writes.
type script struct{ r io.Reader }

func (s *script) Read(p []byte) (int, error)  { return s.r.Read(p) }
func (s *script) Write(p []byte) (int, error) { return len(p), nil }
func (s *script) Close() error                { return nil }
