package splice

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

const patience = 20 * time.Second // for what must happen

// pair returns the two ends of a TCP connection.
func pair(t *testing.T) (*net.TCPConn, *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	a.SetDeadline(time.Now().Add(patience))
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

// joined returns the outer ends of a splice, and what is closed when it ends.
func joined(t *testing.T) (client, server *net.TCPConn, done chan struct{}) {
	t.Helper()
	client, a := pair(t)
	server, b := pair(t)
	done = make(chan struct{})
	go func() { Join(a, b); close(done) }()
	return client, server, done
}

func ended(t *testing.T, done chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(patience):
		t.Error("the splice goes on")
	}
}

// TestHalfClose: either side may end its direction first, and still hears.
func TestHalfClose(t *testing.T) {
	for _, first := range []string{"client", "server"} {
		t.Run(first, func(t *testing.T) {
			a, b, done := joined(t)
			if first == "server" {
				a, b = b, a
			}
			io.WriteString(a, "all of it")
			a.CloseWrite()
			if got, err := io.ReadAll(b); string(got) != "all of it" || err != nil {
				t.Errorf("read %q, %v", got, err)
			}
			io.WriteString(b, "heard")
			b.CloseWrite()
			if got, err := io.ReadAll(a); string(got) != "heard" || err != nil {
				t.Errorf("read %q, %v", got, err)
			}
			ended(t, done)
		})
	}
}

// full writes to c until nothing has been taken for a while.
func full(c net.Conn) (sent int) {
	b := bytes.Repeat([]byte("x"), 1<<16)
	for {
		c.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		n, err := c.Write(b)
		if sent += n; err != nil {
			c.SetWriteDeadline(time.Now().Add(patience))
			return sent
		}
	}
}

// TestBothFull: with every buffer full in both directions each still drains,
// whatever the other does, and nothing is lost.
func TestBothFull(t *testing.T) {
	a, b, done := joined(t)
	sentA, sentB := full(a), full(b)
	if sentA < 1<<16 || sentB < 1<<16 || sentA > 64<<20 {
		t.Fatalf("%d and %d bytes were taken with nobody reading", sentA, sentB)
	}
	a.CloseWrite()
	if n, err := io.Copy(io.Discard, b); int(n) != sentA || err != nil { // b's own direction stays full
		t.Errorf("%d of %d bytes, %v", n, sentA, err)
	}
	b.CloseWrite()
	if n, err := io.Copy(io.Discard, a); int(n) != sentB || err != nil {
		t.Errorf("%d of %d bytes, %v", n, sentB, err)
	}
	ended(t, done)
}

// TestReset: a reset of one side resets the other, also one that is full both
// ways.
func TestReset(t *testing.T) {
	for name, fill := range map[string]bool{"idle": false, "full": true} {
		t.Run(name, func(t *testing.T) {
			a, b, done := joined(t)
			if fill {
				full(a)
				full(b)
			}
			Reset(a)
			if _, err := io.Copy(io.Discard, b); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the other side read %v", err)
			}
			ended(t, done)
		})
	}
}

// TestWatch: what moves is left alone, what does not is told once, and what
// has ended never.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var moved atomic.Bool
		var told atomic.Int32
		stop := Watch(&moved, func() { told.Add(1) })
		for range 5 {
			moved.Store(true)
			time.Sleep(Idle/2 + time.Second)
		}
		if told.Load() != 0 {
			t.Error("told while something moved")
		}
		time.Sleep(2 * Idle)
		if n := told.Load(); n != 1 {
			t.Errorf("told %d times", n)
		}
		stop()

		Watch(&moved, func() { told.Add(1) })()
		time.Sleep(2 * Idle)
		if told.Load() != 1 {
			t.Error("told after the end")
		}
	})
}
