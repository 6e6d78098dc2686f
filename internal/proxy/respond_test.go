package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/testnet"
)

// handler makes good.test answer by h.
func handler(h http.HandlerFunc) option {
	return func(w *world) {
		cert := must(w.ca.Cert("good.test"))
		w.good = w.start(testnet.UpstreamConfig{Cert: &cert, Handler: h})
		w.to[goodAddr] = w.good.Addr()
	}
}

// Wherever an upstream puts the value, the guest reads the placeholder. C1.
func TestEchoScrubbed(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		for _, path := range []string{"/echo", "/echo.json", "/echo/headers", "/echo/cookie", "/echo/location", "/echo/trailer", "/echo/early", "/stream?n=3&ms=1", "/echo/status"} {
			t.Run(path, func(t *testing.T) {
				w := newWorld(t, protocol)
				if path == "/echo/status" && protocol == "h2" {
					return // HTTP/2 has no status text
				}
				var early strings.Builder
				a := w.do(w.client(), "GET", "https://good.test"+path, nil, func(r *http.Request) {
					r.Header.Set("Authorization", "Bearer "+placeholder)
					*r = *r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
						Got1xxResponse: func(_ int, h textproto.MIMEHeader) error { return http.Header(h).Write(&early) },
					}))
				})
				if a.status == 0 || a.err != nil {
					t.Fatalf("answer is %d %s %v", a.status, a.body, a.err)
				}
				if got := w.last(w.good, 1).Header.Get("Authorization"); got != "Bearer "+value {
					t.Fatalf("upstream got %q", got)
				}
				all := a.all + early.String()
				w.clean(all)
				if path != "/echo/status" && !strings.Contains(all, placeholder) && !strings.Contains(all, "%24MSB_API_KEY") {
					t.Errorf("the placeholder is not where the value was: %s", all)
				}
				if path == "/echo/early" && !strings.Contains(early.String(), placeholder) {
					t.Errorf("the early hint is lost: %q", early.String())
				}
				if path != "/echo/status" {
					w.expect(audit.Scrubbed, policy.None)
				}
			})
		}
	})
}

// The placeholder is shorter than the value: lengths must be right again.
func TestScrubbedLength(t *testing.T) {
	for _, size := range []int{1000, 200_000, holdLimit + 1, 3 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			protocols(t, func(t *testing.T, protocol string) {
				body := strings.Repeat("x", size/2) + value + strings.Repeat("y", size/2-len(value))
				w := newWorld(t, protocol, handler(func(rw http.ResponseWriter, r *http.Request) {
					rw.Header().Set("Content-Length", fmt.Sprint(len(body)))
					io.WriteString(rw, body)
				}))
				a := w.get(w.client(), "https://good.test/", placeholder)
				if a.err != nil || a.header.Get("Content-Length") != fmt.Sprint(len(a.body)) {
					t.Fatalf("length is %s, body %d, %v", a.header.Get("Content-Length"), len(a.body), a.err)
				}
				w.clean(a.all)
				if long := len(body) > holdLimit; long != (len(a.body) == len(body)) {
					t.Errorf("length was %d and is %d", len(body), len(a.body))
				}
				if !strings.HasPrefix(a.body, strings.Repeat("x", size/2)+placeholder) || !strings.HasSuffix(a.body, strings.Repeat("y", size/2-len(value))) {
					t.Error("more than the value has changed")
				}
			})
		})
	}
}

// Elsewhere nothing of that is touched.
func TestOtherHostUntouched(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		w := newWorld(t, protocol, func(w *world) { w.cfg.Intercept = All })
		a := w.do(w.client(), "GET", "https://evil.test/echo", nil, func(r *http.Request) {
			r.Header.Set("Accept-Encoding", "gzip, br")
			r.Header.Set("Range", "bytes=0-20")
		})
		if r := w.last(w.evil, 1); r.Header.Get("Accept-Encoding") != "gzip, br" || r.Header.Get("Range") != "bytes=0-20" {
			t.Errorf("upstream got %q, answer is %d %v", r.Header, a.status, a.err)
		}
	})
}

// Both sides may speak at once, on one request.
func TestFullDuplex(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		w := newWorld(t, protocol, handler(func(rw http.ResponseWriter, r *http.Request) {
			control := http.NewResponseController(rw)
			control.EnableFullDuplex()
			rw.WriteHeader(200)
			control.Flush()
			lines := bufio.NewScanner(r.Body)
			for lines.Scan() {
				fmt.Fprintln(rw, "echo", lines.Text())
				control.Flush()
			}
		}))
		body, say := io.Pipe()
		r, _ := http.NewRequest("POST", "https://good.test/", body)
		resp, err := w.client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		hear := bufio.NewScanner(resp.Body)
		for i := range 5 {
			fmt.Fprintln(say, i)
			if hear.Scan(); hear.Text() != fmt.Sprint("echo ", i) {
				t.Fatalf("heard %q, %v", hear.Text(), hear.Err())
			}
		}
		say.Close()
		if hear.Scan() || hear.Err() != nil {
			t.Errorf("heard %q, %v at the end", hear.Text(), hear.Err())
		}
	})
}

func TestAnswerHead(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		w := newWorld(t, protocol, handler(func(rw http.ResponseWriter, r *http.Request) {
			h := rw.Header()
			h["Date"], h["Content-Type"] = nil, nil
			h.Set("Alt-Svc", `h3=":443"`)
			h.Set("Content-Length", "5")
			switch r.URL.Path {
			case "/204":
				h.Del("Content-Length")
				rw.WriteHeader(204)
			case "/304":
				rw.WriteHeader(304)
			case "/302":
				h.Set("Location", "https://evil.test/")
				rw.WriteHeader(302)
				io.WriteString(rw, "there")
			default:
				if r.Method != "HEAD" {
					io.WriteString(rw, "<htm>")
				}
			}
		}))
		c := w.client()
		for _, tt := range []struct {
			method, path string
			status       int
			length, body string
		}{
			{"GET", "/", 200, "5", "<htm>"},
			{"HEAD", "/", 200, "5", ""},
			{"GET", "/204", 204, "", ""},
			{"GET", "/302", 302, "5", "there"},
			{"GET", "/", 200, "5", "<htm>"},
		} {
			a := w.do(c, tt.method, "https://good.test"+tt.path, nil, header("Authorization", "Bearer "+placeholder))
			if a.status != tt.status || a.header.Get("Content-Length") != tt.length || a.body != tt.body || a.err != nil {
				t.Errorf("%s %s: %d %v %q %v", tt.method, tt.path, a.status, a.header, a.body, a.err)
			}
			for _, name := range []string{"Alt-Svc", "Date", "Content-Type"} {
				if v, ok := a.header[name]; ok {
					t.Errorf("%s %s: %s is %q", tt.method, tt.path, name, v)
				}
			}
		}
		if n := len(w.evil.Requests()); n > 0 {
			t.Error("a redirect was followed")
		}
	})
}

// An answer that breaks off reaches the guest as one that breaks off.
func TestBrokenAnswer(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		for _, length := range []string{"", "3000000"} {
			w := newWorld(t, protocol, handler(func(rw http.ResponseWriter, r *http.Request) {
				if length != "" {
					rw.Header().Set("Content-Length", length)
				}
				io.WriteString(rw, strings.Repeat("x", 100_000))
				rw.(http.Flusher).Flush()
				panic(http.ErrAbortHandler)
			}))
			a := w.get(w.client(), "https://good.test/", placeholder)
			if a.err == nil {
				t.Errorf("length %q: the answer ended well after %d bytes", length, len(a.body))
			}
		}
	})
}

// A server that closes an idle connection closes the guest's, and the next
// request opens both anew.
func TestServerCloses(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		w := newWorld(t, protocol, handler(func(rw http.ResponseWriter, r *http.Request) {
			if protocol == "h1" {
				rw.Header().Set("Connection", "close")
			}
			io.WriteString(rw, "ok")
		}))
		c := w.client()
		for range 3 {
			if a := w.get(c, "https://good.test/", placeholder); a.status != 200 {
				t.Errorf("answer is %d %s %v", a.status, a.body, a.err)
			}
		}
	})
}

// Large bodies pass in constant memory.
func TestLargeBodies(t *testing.T) {
	const size = 50 << 20
	protocols(t, func(t *testing.T, protocol string) {
		w := newWorld(t, protocol)
		c := w.client()
		// Both ends run in this process too, and the collector doubles.
		wantFlat(t, 40<<20, func() {
			a := w.do(c, "POST", "https://good.test/upload", io.LimitReader(zeroes{}, size), func(r *http.Request) {
				r.ContentLength = size
				r.Header.Set("Authorization", "Bearer "+placeholder)
			})
			if a.status != 200 || !strings.Contains(a.body, fmt.Sprintf(`"bytes":%d,`, size)) {
				t.Errorf("answer is %d %s %v", a.status, a.body, a.err)
			}
			r, _ := http.NewRequest("GET", fmt.Sprintf("https://good.test/bytes?n=%d", size), nil)
			resp, err := c.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			n, err := io.Copy(io.Discard, resp.Body)
			if n != size || err != nil {
				t.Errorf("got %d bytes, %v", n, err)
			}
		})
	})
}
