package proxy

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	fast "github.com/klauspost/compress/gzip"
)

// grown runs f and returns by how much the heap grew meanwhile, at most.
func grown(t *testing.T, f func()) (size uint64) {
	if raced {
		t.Skip("measures memory: make unit runs it without the race detector")
	}
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	before, top := m.HeapAlloc, m.HeapAlloc
	stop, done := make(chan bool), make(chan bool)
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
				runtime.ReadMemStats(&m)
				top = max(top, m.HeapAlloc)
			}
		}
	}()
	f()
	close(stop)
	<-done
	t.Logf("the heap has grown by %d MiB", (top-before)>>20)
	return top - before
}

// wantFlat checks that f needs no more memory than limit.
func wantFlat(t *testing.T, limit uint64, f func()) {
	t.Helper()
	if size := grown(t, f); size > limit {
		t.Errorf("the heap has grown by %d MiB", size>>20)
	}
}

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) { clear(p); return len(p), nil }

const pageSize = 64 << 10

// page is text with the value once.
func page() []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < pageSize-150; i++ {
		fmt.Fprintf(&b, `{"id":%d,"name":"item %d","tags":["red","green"],"price":%d.99},`, i*7919%100_000, i, i*31%500)
	}
	b.WriteString(value)
	b.WriteString(strings.Repeat(" ", pageSize-b.Len()))
	return b.Bytes()
}

// scrubbed is what the guest reads of a page: where a length was told it
// stays as it is.
func scrubbed(page []byte, coding string) []byte {
	instead := placeholder
	if coding == "identity" {
		instead += strings.Repeat("*", len(value)-len(placeholder))
	}
	return bytes.ReplaceAll(page, []byte(value), []byte(instead))
}

// A long answer passes in constant memory, byte for byte but for values.
func TestDownloadMemory(t *testing.T) {
	const size = 1 << 30
	want := page()
	protocols(t, func(t *testing.T, protocol string) {
		for _, coding := range []string{"identity", "gzip"} {
			t.Run(coding, func(t *testing.T) {
				w := newWorld(t, protocol, handler(long(size, coding)))
				want := scrubbed(want, coding)
				// Both ends run here, and the collector doubles what other tests left too.
				wantFlat(t, 64<<20, func() {
					began := time.Now()
					body := w.stream(w.client(), "/").Body
					got := make([]byte, len(want))
					for n := range size / pageSize {
						if _, err := io.ReadFull(body, got); err != nil || !bytes.Equal(got, want) {
							t.Fatalf("page %d: %v, %.100q", n, err, got)
						}
					}
					if n, err := io.Copy(io.Discard, body); n > 0 || err != nil {
						t.Errorf("%d bytes more, %v", n, err)
					}
					t.Logf("%d MiB in %v", size>>20, time.Since(began).Round(time.Millisecond))
				})
				w.noneHeld()
			})
		}
	})
}

// long answers with pages, size bytes in all, whose length it tells unless
// they are coded.
func long(size int, coding string) http.HandlerFunc {
	text := page()
	return func(rw http.ResponseWriter, r *http.Request) {
		h := rw.Header()
		h.Set("Content-Type", "application/json")
		out := io.Writer(rw)
		if coding == "gzip" {
			h.Set("Content-Encoding", "gzip")
			z, _ := fast.NewWriterLevel(rw, fast.BestSpeed)
			defer z.Close()
			out = z
		} else {
			h.Set("Content-Length", fmt.Sprint(size))
		}
		for range size / pageSize {
			if _, err := out.Write(text); err != nil {
				return
			}
		}
	}
}

// decoding is the body of an answer, decoded.
func decoding(resp *http.Response) io.Reader {
	if resp.Header.Get("Content-Encoding") == "gzip" {
		return must(gzip.NewReader(resp.Body))
	}
	return resp.Body
}
