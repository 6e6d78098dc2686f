package secret

import (
	"net"
	"runtime"
	"testing"
)

// TestRecordBuffers: a record with a value finds a buffer that is long enough,
// though the collector has just taken all that there were: crypto/tls allocates
// nothing while it writes one.
func TestRecordBuffers(t *testing.T) {
	if raceBuild {
		t.Skip("the race detector makes sync.Pool drop record buffers at random")
	}
	const rounds = 50
	for _, n := range []int{1, 200, 1000, 5000, slotSize} {
		for _, how := range []struct {
			name  string
			write func(net.Conn, []byte) error
			grown bool // expected
		}{
			{"zeros first", writeRecord, false},
			{"control", func(c net.Conn, text []byte) error { _, err := c.Write(text); return err }, true},
		} {
			z, err := newZeroWriter()
			if err != nil {
				t.Fatal(err)
			}
			c := &mallocsConn{Conn: z.conn}
			text := make([]byte, n)
			for range rounds {
				runtime.GC() // sync.Pool keeps its items over the first
				runtime.GC()
				if err := how.write(c, text); err != nil {
					t.Fatal(err)
				}
			}
			// Now and then the goroutine is moved between the two.
			if grown := c.mallocs > rounds/10; grown != how.grown {
				t.Errorf("%s, %d bytes: %d allocations in %d writes", how.name, n, c.mallocs, rounds)
			}
		}
	}
}

// A mallocsConn counts what is allocated while it is written.
type mallocsConn struct {
	net.Conn
	mallocs uint64
}

func (c *mallocsConn) Write(p []byte) (int, error) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	n, err := c.Conn.Write(p)
	runtime.ReadMemStats(&after)
	c.mallocs += after.Mallocs - before.Mallocs
	return n, err
}
