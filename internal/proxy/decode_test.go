package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/secret"
	"github.com/cutoutdev/cutout/internal/testnet"
)

// A coded answer is decoded, searched and given as what it is then. C2, C10.
func TestCodedAnswer(t *testing.T) {
	sum := http.Header{"Content-Md5": {"x"}, "Content-Digest": {"x"}, "Repr-Digest": {"x"}, "Digest": {"x"}, "X-Goog-Hash": {"x"}, "X-Amz-Checksum-Crc32": {"x"}}
	protocols(t, func(t *testing.T, protocol string) {
		for _, codings := range []string{"gzip", "deflate", "br", "zstd", "x-gzip", "GZip", "identity, gzip", "br, gzip"} {
			for _, size := range []int{0, 1000, 3 << 20} {
				for _, measured := range []bool{true, false} {
					text := strings.Repeat("x", size/2) + value + strings.Repeat("y", size/2)
					w := newWorld(t, protocol, handler(func(rw http.ResponseWriter, r *http.Request) {
						h := rw.Header()
						copyHeader(h, sum)
						h.Set("Content-Type", "text/plain")
						h.Set("Content-Encoding", codings)
						h.Set("ETag", `"tag"`)
						h.Set("Vary", "Accept-Encoding")
						h.Set("Trailer", "Content-Digest, X-After")
						body := text
						for c := range strings.SplitSeq(strings.ToLower(codings), ", ") {
							if c = strings.TrimPrefix(c, "x-"); c != "identity" {
								body = coded(body, c)
							}
						}
						if measured {
							h.Set("Content-Length", fmt.Sprint(len(body)))
							h.Del("Trailer")
						}
						io.WriteString(rw, body)
						if !measured {
							rw.(http.Flusher).Flush()
							h.Set("Content-Digest", "x")
							h.Set("X-After", value)
						}
					}))
					a := w.do(w.client(), "GET", "https://good.test/", nil, func(r *http.Request) {
						r.Header.Set("Authorization", "Bearer "+placeholder)
						r.Header.Set("Accept-Encoding", "br;q=0.5, gzip, exotic")
					})
					name := fmt.Sprintf("%s of %d, measured %t", codings, size, measured)
					if want := strings.ReplaceAll(text, value, placeholder); a.status != 200 || a.body != want || a.err != nil {
						t.Errorf("%s: %d, %d bytes %.100q, want %d; %v", name, a.status, len(a.body), a.body, len(want), a.err)
					}
					w.clean(a.all)
					for field := range sum {
						if a.header.Get(field) != "" {
							t.Errorf("%s: %s is %q", name, field, a.header[field])
						}
					}
					short := measured && len(text) < holdLimit
					if got, want := a.header.Get("Content-Length"), fmt.Sprint(len(a.body)); short && got != want || !short && got != "" {
						t.Errorf("%s: length is %q of %s", name, got, want)
					}
					if a.header.Get("Content-Encoding") != "" || a.header.Get("ETag") != `"tag"` || a.header.Get("Vary") != "Accept-Encoding" {
						t.Errorf("%s: header is %v", name, a.header)
					}
					if !measured && !strings.HasSuffix(a.all, "X-After: "+placeholder+"\r\n") || strings.Contains(a.all, "Content-Digest") {
						t.Errorf("%s: trailers are %q", name, a.all[max(0, len(a.all)-100):])
					}
					if got := w.last(w.good, 1).Header.Get("Accept-Encoding"); got != "br;q=0.5, gzip" {
						t.Errorf("upstream is asked for %q", got)
					}
				}
			}
		}
	})
}

// Without a body there is nothing to search, and the header says what a GET
// would give.
func TestCodedHead(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		w := newWorld(t, protocol, handler(func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Content-Encoding", r.Header.Get("X-Coding"))
			switch r.URL.Path {
			case "/304":
				rw.WriteHeader(304)
			case "/204":
				rw.WriteHeader(204)
			case "/206":
				rw.Header().Set("Content-Range", "bytes 0-9/100")
				rw.Header().Set("Content-Length", "10")
				rw.WriteHeader(206)
			default:
				rw.Header().Set("Content-Length", "10")
			}
		}))
		c := w.client()
		for _, tt := range []struct {
			method, path, coding string
			status               int
			encoding, length     string
		}{
			{"HEAD", "/", "gzip", 200, "", ""},
			{"HEAD", "/", "exotic", 200, "exotic", "10"},
			{"HEAD", "/206", "", 206, "", "10"},
			{"GET", "/304", "gzip", 304, "", ""},
			{"GET", "/304", "exotic", 304, "exotic", ""},
			{"GET", "/204", "br", 204, "", ""},
		} {
			a := w.do(c, tt.method, "https://good.test"+tt.path, nil, header("X-Coding", tt.coding))
			if a.status != tt.status || a.header.Get("Content-Encoding") != tt.encoding || a.header.Get("Content-Length") != tt.length || a.err != nil {
				t.Errorf("%s %s %s: %d %v %v", tt.method, tt.path, tt.coding, a.status, a.header, a.err)
			}
		}
	})
}

// plainly is an encoder that leaves things as they are.
type plainly struct{ io.Writer }

func (plainly) Flush() error { return nil }
func (plainly) Close() error { return nil }

// A stream is live: what was flushed arrives before the server says more.
func TestLive(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		for _, coding := range []string{"identity", "gzip", "deflate", "br", "zstd"} {
			t.Run(coding, func(t *testing.T) {
				more := make(chan bool)
				w := newWorld(t, protocol, handler(func(rw http.ResponseWriter, r *http.Request) {
					rw.Header().Set("Content-Type", "text/event-stream")
					encoder := func(w io.Writer) flushWriter { return plainly{w} }
					if coding != "identity" {
						rw.Header().Set("Content-Encoding", coding)
						encoder = encoders[coding]
					}
					z := encoder(rw)
					for i := range 20 {
						fmt.Fprintf(z, "data: %d %s\n\n", i, r.Header.Get("Authorization"))
						z.Flush()
						rw.(http.Flusher).Flush()
						<-more
					}
					z.Close()
				}))
				defer close(more)
				lines := bufio.NewScanner(w.stream(w.client(), "/").Body)
				for i := range 20 {
					lines.Scan()
					if want := fmt.Sprintf("data: %d Bearer %s", i, placeholder); lines.Text() != want {
						t.Fatalf("line is %q, %v", lines.Text(), lines.Err())
					}
					lines.Scan()
					more <- true
				}
				if lines.Scan() || lines.Err() != nil {
					t.Errorf("the end is %q, %v", lines.Text(), lines.Err())
				}
			})
		}
	})
}

// An answer that cannot be searched is withheld, with a value or without: an
// earlier request may have stored one. C2, C4, C13.
func TestUnscannable(t *testing.T) {
	bomb := coded(strings.Repeat("\x00", 64<<20), "gzip")
	answers := map[string]http.HandlerFunc{
		"/coding": func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Content-Encoding", "exotic")
			io.WriteString(rw, "whatever")
		},
		"/over": func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Content-Encoding", "exotic, gzip")
			io.WriteString(rw, coded("whatever", "gzip"))
		},
		"/stack": func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Content-Encoding", "gzip, gzip, gzip, gzip, gzip")
			io.WriteString(rw, coded("whatever", "gzip", "gzip", "gzip", "gzip", "gzip"))
		},
		"/named": func(rw http.ResponseWriter, r *http.Request) { // the reason must not repeat it
			rw.Header().Set("Content-Encoding", value)
			io.WriteString(rw, "whatever")
		},
		"/damaged": func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Content-Encoding", "gzip")
			rw.Header().Set("Content-Length", "10")
			io.WriteString(rw, "0123456789")
		},
		"/truncated": func(rw http.ResponseWriter, r *http.Request) {
			text := coded("whatever "+value, "gzip")
			rw.Header().Set("Content-Encoding", "gzip")
			rw.Header().Set("Content-Length", fmt.Sprint(len(text)-1))
			io.WriteString(rw, text[:len(text)-1])
		},
		"/slice": func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Content-Range", "bytes 0-20/99")
			rw.WriteHeader(http.StatusPartialContent)
			io.WriteString(rw, value[:20])
		},
		"/parts": func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Content-Type", "multipart/byteranges; boundary=b")
			rw.WriteHeader(http.StatusPartialContent)
			io.WriteString(rw, "--b\r\nContent-Range: bytes 0-20/99\r\n\r\n"+value[:20]+"\r\n--b--\r\n")
		},
		"/bomb": func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Content-Encoding", "gzip")
			io.WriteString(rw, bomb)
		},
	}
	serve := handler(func(rw http.ResponseWriter, r *http.Request) { answers[r.URL.Path](rw, r) })
	protocols(t, func(t *testing.T, protocol string) {
		for path := range answers {
			for _, token := range []string{placeholder, "own-token-that-is-not-secret"} {
				w := newWorld(t, protocol, serve)
				a := w.get(w.client(), "https://good.test"+path, token)
				switch {
				case path == "/bomb" && a.err == nil:
					t.Errorf("the answer ended well after %d bytes", len(a.body))
				case path == "/bomb":
					w.expect(audit.Aborted, policy.Unscannable)
				default:
					w.refused(a, 502, policy.Unscannable)
				}
				if strings.Contains(a.all, value[:20]) {
					t.Errorf("the guest reads %q", a.all)
				}
				for _, e := range w.found(audit.Refused) {
					w.clean(e.Detail)
				}
			}
		}
	})
}

// lax passes on what cannot be searched, and searches what can be. off leaves
// everything alone.
func TestScrubModes(t *testing.T) {
	mode := func(m Scrub) option {
		return func(w *world) { w.cfg.Scrub = func(hostname.Name) Scrub { return m } }
	}
	serve := handler(func(rw http.ResponseWriter, r *http.Request) {
		h := rw.Header()
		h.Set("Content-Type", "text/plain")
		h.Set("X-Echo", value)
		switch r.URL.Path {
		case "/exotic":
			h.Set("Content-Encoding", "exotic")
			io.WriteString(rw, "<"+value+">")
		case "/slice":
			h.Set("Content-Range", "bytes 0-9/99")
			rw.WriteHeader(206)
			io.WriteString(rw, value[:10])
		case "/gzip":
			h.Set("Content-Encoding", "gzip")
			io.WriteString(rw, coded(value, "gzip"))
		default:
			io.WriteString(rw, value)
		}
	})
	protocols(t, func(t *testing.T, protocol string) {
		for _, tt := range []struct {
			mode       Scrub
			path, want string
		}{
			{ScrubLax, "/", placeholder},
			{ScrubLax, "/exotic", "<" + padded + ">"},
			{ScrubLax, "/slice", value[:10]},
			{ScrubLax, "/gzip", placeholder},
			{ScrubOff, "/", value},
			{ScrubOff, "/exotic", "<" + value + ">"},
			{ScrubOff, "/slice", value[:10]},
			{ScrubOff, "/gzip", coded(value, "gzip")},
		} {
			w := newWorld(t, protocol, mode(tt.mode), serve)
			a := w.do(w.client(), "GET", "https://good.test"+tt.path, nil, func(r *http.Request) {
				r.Header.Set("Authorization", "Bearer "+placeholder)
				r.Header.Set("Accept-Encoding", "exotic")
				r.Header.Set("Range", "bytes=0-9, 20-29")
			})
			if a.body != tt.want || a.err != nil {
				t.Errorf("%d %s: %d %q %v, want %q", tt.mode, tt.path, a.status, a.body, a.err, tt.want)
			}
			if got := a.header.Get("X-Echo"); (got == value) != (tt.mode == ScrubOff) {
				t.Errorf("%d %s: header is %q", tt.mode, tt.path, got)
			}
			r := w.last(w.good, 1)
			if left := r.Header.Get("Accept-Encoding") == "exotic" && r.Header.Get("Range") != ""; left != (tt.mode == ScrubOff) {
				t.Errorf("%d: upstream got %v", tt.mode, r.Header)
			}
			if r.Header.Get("Authorization") != "Bearer "+value {
				t.Errorf("%d: upstream got no value", tt.mode)
			}
		}
	})
}

// With all, hosts of no secret are searched too; else they are left alone.
func TestScrubAll(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		for _, all := range []bool{false, true} {
			w := newWorld(t, protocol, func(w *world) {
				w.cfg.Intercept, w.cfg.ScrubAll = All, all
				cert := must(w.ca.Cert("evil.test"))
				w.to[evilAddr] = w.start(testnet.UpstreamConfig{Cert: &cert, Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { io.WriteString(rw, value) })}).Addr()
			})
			a := w.get(w.client(), "https://evil.test/", "x")
			if clean := a.body == placeholder; clean != all || a.err != nil {
				t.Errorf("all %t: %q %v", all, a.body, a.err)
			}
		}
	})
}

// A plain request's host is the guest's own word, and so turns nothing off.
func TestScrubOffNeedsTheHost(t *testing.T) {
	for host, searched := range map[string]bool{"good.test": false, "other.test": true, "evil.test": true} {
		w := newWorld(t, "h1", secrets(func(w *world) []*secret.Secret {
			return []*secret.Secret{
				w.secret("API_KEY", placeholder, value, "good.test", 443),
				w.secret("OTHER", "$MSB_OTHER_KEY", "an0ther-value-entirely", "other.test", 443),
			}
		}), func(w *world) { w.cfg.Scrub = func(hostname.Name) Scrub { return ScrubOff } })
		plain := netip.AddrPortFrom(goodAddr.Addr(), 80)
		w.to[plain] = w.start(testnet.UpstreamConfig{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Content-Type", "text/plain")
			io.WriteString(rw, value)
		})}).Addr()
		c := must(w.connect(context.Background(), plain))
		c.SetDeadline(time.Now().Add(10 * time.Second))
		a := raw1{c, bufio.NewReader(c)}.send("GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n")
		if got := a.body == placeholder; got != searched {
			t.Errorf("%s: %d %q %v", host, a.status, a.body, a.err)
		}
	}
}

// What becomes of a value depends on whether the length may change.
func TestScrubKeepsLength(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		for _, tt := range []struct {
			kind, ranges string
			whole        bool
		}{
			{"text/plain", "", true},
			{"application/json; charset=utf-8", "", true},
			{"application/vnd.api+json", "none", true},
			{"text/event-stream", "", true},
			{"text/plain", "bytes", false},
			{"text/plain; charset=utf-16", "", false},
			{"application/octet-stream", "", false},
			{"application/x-protobuf", "", false},
			{"multipart/mixed; boundary=x", "", false},
			{"", "", false},
		} {
			for _, length := range []string{"", fmt.Sprint(len(value) + 2)} {
				w := newWorld(t, protocol, handler(func(rw http.ResponseWriter, r *http.Request) {
					h := rw.Header()
					h["Content-Type"] = nil
					if tt.kind != "" {
						h.Set("Content-Type", tt.kind)
					}
					if tt.ranges != "" {
						h.Set("Accept-Ranges", tt.ranges)
					}
					if length != "" {
						h.Set("Content-Length", length)
					}
					io.WriteString(rw, "<"+value+">")
					rw.(http.Flusher).Flush()
				}))
				want := "<" + padded + ">"
				if tt.whole {
					want = "<" + placeholder + ">"
				}
				if a := w.get(w.client(), "https://good.test/", placeholder); a.body != want || a.err != nil {
					t.Errorf("%q %q length %q: %q %v, want %q", tt.kind, tt.ranges, length, a.body, a.err, want)
				}
			}
		}
	})
}
