package proxy

import (
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/cutoutdev/cutout/internal/secret"
)

// open begins a request with a body.
func (c *raw2) open(id uint32, fields ...string) {
	c.block.Reset()
	fields = append([]string{":method", "POST", ":scheme", "https", ":path", "/upload", ":authority", "good.test", "content-type", "text/plain"}, fields...)
	for i := 0; i < len(fields); i += 2 {
		c.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.block.Bytes(), EndHeaders: true})
}

const postHead = "POST /upload HTTP/1.1\r\nHost: good.test\r\nContent-Type: text/plain\r\n"

// D5: a placeholder split at every byte over chunks, DATA frames and TLS
// records.
func TestBodySplit(t *testing.T) {
	body := "a" + placeholder + "b" + placeholder
	want := strings.ReplaceAll(body, placeholder, value)
	t.Run("h1", func(t *testing.T) {
		w := newWorld(t, "h1", inBodies)
		c := w.raw1()
		for i := 1; i < len(body); i++ {
			io.WriteString(c, postHead+"Transfer-Encoding: chunked\r\n\r\n")
			for _, piece := range []string{body[:i], body[i:]} {
				fmt.Fprintf(c, "%x\r\n", len(piece))
				io.WriteString(c, piece+"\r\n")
			}
			io.WriteString(c, "0\r\n\r\n")
			if a := c.read(); a.status != 200 {
				t.Fatalf("split at %d: %d %s %v", i, a.status, a.body, a.err)
			}
			w.wantBody(i, want)
		}
	})
	t.Run("h2", func(t *testing.T) {
		w := newWorld(t, "h2", inBodies)
		c := w.raw2()
		for i := 1; i < len(body); i++ {
			id := uint32(2*i - 1)
			c.open(id)
			c.framer.WriteData(id, false, []byte(body[:i]))
			c.framer.WriteData(id, false, nil)
			c.framer.WriteData(id, i%2 == 0, []byte(body[i:]))
			if i%2 == 1 {
				c.framer.WriteData(id, true, nil)
			}
			if got := c.status(id); got != "200" {
				t.Fatalf("split at %d: %q", i, got)
			}
			w.wantBody(i, want)
		}
	})
}

// B10: one 100 and no hang, whether the body is read before the head goes up
// or not; none if the request is refused by its head.
func TestBodyExpect(t *testing.T) {
	for name, opt := range map[string]option{"on": inBodies, "off": func(*world) {}, "held": func(w *world) {
		inBodies(w)
		w.cfg.OnViolation = secret.Violation{Action: secret.Block, Hold: true}
	}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "h1", opt, spooling)
			for _, size := range []int{0, 5, 100_000, spoolFrom + 1} {
				for _, chunked := range []bool{false, true} {
					c := w.raw1()
					body := strings.Repeat("x", size)
					framing, text := fmt.Sprintf("Content-Length: %d\r\n", size), body
					if chunked {
						framing, text = "Transfer-Encoding: chunked\r\n", fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", size, body)
						if size == 0 {
							text = "0\r\n\r\n"
						}
					}
					io.WriteString(c, postHead+"Expect: 100-continue\r\n"+framing+"\r\n")
					c.SetReadDeadline(time.Now().Add(20 * time.Second))
					hundreds := 0
					for {
						resp, err := http.ReadResponse(c.r, nil)
						if err != nil {
							t.Fatalf("%d bytes, chunked %v: %v", size, chunked, err)
						}
						if resp.StatusCode == 100 {
							hundreds++
							go io.WriteString(c, text)
							continue
						}
						io.Copy(io.Discard, resp.Body)
						if resp.StatusCode != 200 {
							t.Errorf("%d bytes, chunked %v: %d", size, chunked, resp.StatusCode)
						}
						break
					}
					if want := min(1, size); hundreds != want && !(chunked && size == 0) || hundreds > 1 {
						t.Errorf("%d bytes, chunked %v: %d times 100", size, chunked, hundreds)
					}
					c.Close()
				}
			}
			w.noneHeld()
		})
	}
	w := newWorld(t, "h1", inBodies)
	c := w.raw1()
	io.WriteString(c, postHead+"Expect: 100-continue\r\nContent-Encoding: compress\r\nContent-Length: 5\r\n\r\n")
	if a := c.read(); a.status != 403 {
		t.Errorf("refused by its head: %d %v", a.status, a.err)
	}
}

// D8: a guest that stops half way has sent nothing that the upstream would
// take for a whole message.
func TestBodyStops(t *testing.T) {
	for name, opt := range map[string]option{"on": inBodies, "off": func(*world) {}} {
		for _, tail := range []string{"", placeholder} {
			t.Run(name+"/h1/"+tail, func(t *testing.T) {
				w := newWorld(t, "h1", opt)
				for _, framing := range []string{"Content-Length: 500000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n7a120\r\n"} {
					c := w.raw1()
					io.WriteString(c, postHead+framing+strings.Repeat("x", 100_000)+tail)
					time.Sleep(50 * time.Millisecond)
					c.Close()
				}
				w.noWhole()
			})
			t.Run(name+"/h2/"+tail, func(t *testing.T) {
				w := newWorld(t, "h2", opt)
				for _, fields := range [][]string{nil, {"content-length", "500000"}} {
					c := w.raw2()
					c.open(1, fields...)
					c.framer.WriteData(1, false, []byte(strings.Repeat("x", 10_000)+tail))
					c.open(3, fields...)
					c.framer.WriteData(3, false, []byte(strings.Repeat("x", 10_000)+tail))
					c.framer.WriteRSTStream(3, http2.ErrCodeCancel)
					if fields != nil {
						c.open(5, "content-length", "500000")
						c.framer.WriteData(5, true, []byte("too short"+tail))
						c.open(7, "content-length", "5")
						c.framer.WriteData(7, true, []byte("too long"+tail))
					}
					time.Sleep(100 * time.Millisecond)
					c.conn.Close()
				}
				w.noWhole()
			})
		}
	}
}

// noWhole checks that no upstream has got a request that ended well.
func (w *world) noWhole() {
	w.t.Helper()
	time.Sleep(300 * time.Millisecond)
	for _, r := range w.good.Requests() {
		if r.BodyErr == "" {
			w.t.Errorf("upstream got %d bytes as a whole body: %q", r.BodySize, r.Header)
		}
	}
	w.noneHeld()
}

// A large body passes in constant memory, also one that is measured first.
func TestBodyMemory(t *testing.T) {
	for _, tt := range []struct {
		name   string
		size   int64
		length bool
	}{{"streamed", 1 << 30, false}, {"measured", 256 << 20, true}} {
		protocols(t, func(t *testing.T, protocol string) {
			t.Run(tt.name, func(t *testing.T) {
				w := newWorld(t, protocol, inBodies, spooling, handler(func(rw http.ResponseWriter, r *http.Request) {
					n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, r.Body, make([]byte, 64<<10))
					fmt.Fprintf(rw, "%d %v", n, err)
				}))
				src := io.MultiReader(strings.NewReader(placeholder), io.LimitReader(zeroes{}, tt.size), strings.NewReader(placeholder))
				// All three ends run here, and the collector doubles; 16 MiB are
				// what is held of one body.
				wantFlat(t, 128<<20, func() {
					begin := time.Now()
					a := w.do(w.client(), "POST", "https://good.test/upload", src, func(r *http.Request) {
						r.Header.Set("Content-Type", "text/plain")
						if r.ContentLength = -1; tt.length {
							r.ContentLength = tt.size + 2*int64(len(placeholder))
						}
					})
					if want := fmt.Sprint(tt.size+2*int64(len(value)), " <nil>"); a.body != want {
						t.Errorf("answer is %d %q %v, want %q", a.status, a.body, a.err, want)
					}
					t.Logf("%d MiB in %v", tt.size>>20, time.Since(begin).Round(time.Millisecond))
				})
				w.noneHeld()
			})
		})
	}
}

// Refused, finished and broken bodies leave no goroutine behind.
func TestBodyNoGoroutines(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		w := newWorld(t, protocol, inBodies, everywhere(secret.Violation{Action: secret.Block}))
		run := func() {
			c := w.client()
			for _, edit := range framings {
				for _, host := range []string{"good.test", "evil.test"} {
					for _, body := range []string{placeholder, "innocent", strings.Repeat("x", 100_000) + placeholder} {
						zipped := coded(body, "zstd")
						w.post(c, "https://"+host+"/upload", body, edit(body))
						w.post(c, "https://"+host+"/upload", zipped, edit(zipped), header("Content-Encoding", "zstd"))
						w.post(c, "https://"+host+"/upload", zipped[:len(zipped)/2], edit(zipped[:len(zipped)/2]), header("Content-Encoding", "zstd"))
					}
				}
			}
			c.CloseIdleConnections()
		}
		run()
		settled := func() int {
			n := runtime.NumGoroutine()
			for range 100 {
				time.Sleep(20 * time.Millisecond)
				m := runtime.NumGoroutine()
				if m >= n {
					n = m
					break
				}
				n = m
			}
			return n
		}
		time.Sleep(500 * time.Millisecond)
		before := settled()
		for range 4 {
			run()
		}
		time.Sleep(time.Second)
		if after := settled(); after > before+10 {
			buf := make([]byte, 1<<20)
			t.Errorf("%d goroutines became %d\n%.5000s", before, after, buf[:runtime.Stack(buf, true)])
		}
		w.noneHeld()
	})
}
