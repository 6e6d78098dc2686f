package proxy

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/policy"
)

// sliced is a text with values at both ends and in the middle.
func sliced(size int) string {
	var b strings.Builder
	for b.Len() < size {
		fmt.Fprintf(&b, "%07d\n", b.Len())
	}
	fill := b.String()
	return value + fill[:size/2] + value + value + fill[size/2:size] + b64("<"+value) + value
}

// files serves text as a file server does.
func files(text string) option {
	return handler(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "text/plain")
		rw.Header().Set("ETag", `"tag"`)
		http.ServeContent(rw, r, "", time.Time{}, strings.NewReader(text))
	})
}

func ranged(w *world, c *http.Client, value string) answer {
	w.t.Helper()
	return w.do(c, "GET", "https://good.test/", nil, header("Range", value))
}

// Slices of every length and place are those of the whole without values. C4.
func TestSlices(t *testing.T) {
	const lead, tail = 1500, 1200
	text := strings.Repeat("abcdefg\n", lead/8) + value + strings.Repeat("hijklmn\n", tail/8) + value
	clean := strings.ReplaceAll(text, value, padded)
	at := strings.Index(text, value)
	protocols(t, func(t *testing.T, protocol string) {
		w := newWorld(t, protocol, files(text))
		c := w.client()
		check := func(spec string, first, last int) {
			t.Helper()
			last = min(last, len(text)-1)
			a := ranged(w, c, spec)
			if a.err != nil || a.status != 206 || a.body != clean[first:last+1] {
				t.Fatalf("%s: %d %q %v, want %q", spec, a.status, a.body, a.err, clean[first:last+1])
			}
			if got, want := a.header.Get("Content-Range"), fmt.Sprintf("bytes %d-%d/%d", first, last, len(text)); got != want {
				t.Fatalf("%s: %q, want %q", spec, got, want)
			}
			if a.header.Get("Content-Length") != strconv.Itoa(len(a.body)) || a.header.Get("ETag") != `"tag"` {
				t.Fatalf("%s: %v", spec, a.header)
			}
		}
		for i := at - 2; i < at+len(value)+2; i++ {
			check(fmt.Sprintf("bytes=%d-%d", i, i), i, i) // byte by byte
			check(fmt.Sprintf("bytes=%d-", i), i, len(text)-1)
			check(fmt.Sprintf("bytes=0-%d", i), 0, i)
			check(fmt.Sprintf("bytes=%d-%d", i-5, i+20), i-5, i+20)
		}
		for n := 1; n < len(value)+3; n++ {
			check(fmt.Sprintf("bytes=-%d", n), len(text)-n, len(text)-1)
		}
		check("Bytes=0-0", 0, 0)
		check("bytes=-99999", 0, len(text)-1)
		check("bytes=0-99999", 0, len(text)-1)
		check("bytes=5-99999", 5, len(text)-1)
		for _, r := range w.good.Requests() {
			if r.Header.Get("Accept-Encoding") != "identity" {
				t.Fatalf("upstream got %v", r.Header)
			}
		}
		if n := len(w.dialed); n != 1 {
			t.Errorf("%d connections were needed", n)
		}
		w.expect(audit.Scrubbed, policy.None)
	})
}

// TestSliceOfEncodedValue: the margin is as long as the longest form.
func TestSliceOfEncodedValue(t *testing.T) {
	var wide strings.Builder
	for _, c := range value {
		fmt.Fprintf(&wide, `\u%04x`, c)
	}
	for name, form := range map[string]string{"JSON": wide.String(), "Base64": b64("<<<" + value), "percent": strings.ReplaceAll(fmt.Sprintf("% x", value), " ", "%")} {
		text := strings.Repeat(".", 2000) + form + strings.Repeat(".", 2000)
		w := newWorld(t, "h2", files(text))
		c := w.client()
		whole := w.do(c, "GET", "https://good.test/", nil, nil).body
		if len(whole) != len(text) {
			t.Fatalf("%s: the length has changed", name)
		}
		for i := 1990; i < 2010+len(form); i += 3 {
			if a := ranged(w, c, fmt.Sprintf("bytes=%d-%d", i, i+9)); a.body != whole[i:i+10] {
				t.Errorf("%s at %d: %q, want %q", name, i, a.body, whole[i:i+10])
			}
		}
	}
}

// What is behind the end, several, or not understood.
func TestSliceAnswers(t *testing.T) {
	text := strings.Repeat("0123456789", 200)
	protocols(t, func(t *testing.T, protocol string) {
		w := newWorld(t, protocol, files(text))
		c := w.client()
		for _, tt := range []struct {
			spec, ifRange string
			status        int
			contentRange  string
			asked         string // of the upstream; * for whatever
		}{
			{"bytes=2000-", "", 416, "bytes */2000", "*"}, // a download that is complete
			{"bytes=2100-2200", "", 416, "bytes */2000", "*"},
			{"bytes=999999-", "", 416, "bytes */2000", "*"},
			{"bytes=-0", "", 416, "bytes */2000", "*"},
			{"bytes=0-1,5-6", "", 200, "", ""},
			{"bytes=0-1, 2-3", "", 200, "", ""},
			{"bytes=5-2", "", 200, "", ""},
			{"bytes=-", "", 200, "", ""},
			{"bytes=+1-2", "", 200, "", ""},
			{"bytes=99999999999999999999-", "", 200, "", ""},
			{"lines=1-2", "", 200, "", ""},
			{"bytes=0-9", `"tag"`, 206, "bytes 0-9/2000", "*"},
			{"bytes=0-9", `"other"`, 200, "", "*"},
			{"bytes=0-9,20-30", `"tag"`, 200, "", ""},
		} {
			a := w.do(c, "GET", "https://good.test/", nil, func(r *http.Request) {
				r.Header.Set("Range", tt.spec)
				if tt.ifRange != "" {
					r.Header.Set("If-Range", tt.ifRange)
				}
			})
			if a.err != nil || a.status != tt.status || a.header.Get("Content-Range") != tt.contentRange || a.status == 200 && a.body != text {
				t.Errorf("%s: %d %v %.80q %v", tt.spec, a.status, a.header, a.body, a.err)
			}
			got := w.good.Requests()[len(w.good.Requests())-1].Header
			if tt.asked == "" && got.Get("Range")+got.Get("If-Range") != "" {
				t.Errorf("%s: upstream got %v", tt.spec, got)
			}
		}
		w.do(c, "HEAD", "https://good.test/", nil, header("Range", "bytes=0-1"))
		if got := w.good.Requests()[len(w.good.Requests())-1].Header; got.Get("Range") != "" {
			t.Errorf("HEAD: upstream got %v", got)
		}
		if n := len(w.dialed); n != 1 {
			t.Errorf("%d connections were needed", n)
		}
	})
}

// A download that was broken off goes on where it was. Its bytes are the same.
func TestResumedDownload(t *testing.T) {
	for _, size := range []int{100_000, 3 << 20} {
		text := sliced(size)
		protocols(t, func(t *testing.T, protocol string) {
			w := newWorld(t, protocol, files(text))
			c := w.client()
			whole := w.do(c, "GET", "https://good.test/", nil, header("Authorization", "Bearer "+placeholder))
			if whole.err != nil || len(whole.body) != len(text) || strings.Contains(whole.body, value) {
				t.Fatalf("whole: %d of %d bytes, %v", len(whole.body), len(text), whole.err)
			}
			for _, at := range []int{1, 20, size / 2, size/2 + 2*len(value) - 3, len(text) - 30, len(text) - 1} {
				a := w.do(c, "GET", "https://good.test/", nil, func(r *http.Request) {
					r.Header.Set("Range", fmt.Sprintf("bytes=%d-", at))
					r.Header.Set("If-Range", whole.header.Get("ETag"))
				})
				if a.err != nil || whole.body[:at]+a.body != whole.body {
					t.Errorf("resumed at %d: %d, %d bytes, %v", at, a.status, len(a.body), a.err)
				}
			}
		})
	}
}

// Azure's storage has a field of its own.
func TestSliceOtherField(t *testing.T) {
	text := strings.Repeat("0123456789", 200)
	w := newWorld(t, "h1", handler(func(rw http.ResponseWriter, r *http.Request) {
		r.Header.Set("Range", r.Header.Get("X-Ms-Range"))
		http.ServeContent(rw, r, "", time.Time{}, strings.NewReader(text))
	}))
	a := w.do(w.client(), "GET", "https://good.test/", nil, func(r *http.Request) {
		r.Header.Set("Range", "bytes=0-1")
		r.Header.Set("X-Ms-Range", "bytes=700-709")
	})
	if a.status != 206 || a.body != "0123456789" || a.header.Get("Content-Range") != "bytes 700-709/2000" {
		t.Errorf("%d %q %v", a.status, a.body, a.header)
	}
}

// A server that answers something else than it was asked.
func TestSliceWrong(t *testing.T) {
	tail := value[:len(value)-1]
	long := strings.Repeat(".", 5000)
	const refuse, breaks = "refuse", "breaks"
	for name, tt := range map[string]struct {
		head  string // of the 206
		body  string
		whole bool // of known length
		want  string
	}{
		"no place":            {"", tail, true, refuse},
		"two places":          {"Content-Range: bytes 0-9/100|Content-Range: bytes 0-9/100", "0123456789", true, refuse},
		"other unit":          {"Content-Range: lines 0-9/100", "0123456789", true, refuse},
		"backwards":           {"Content-Range: bytes 9-0/100", "0123456789", true, refuse},
		"behind its end":      {"Content-Range: bytes 0-9/9", "0123456789", true, refuse},
		"not its length":      {"Content-Range: bytes 0-9/100", "012345678", true, refuse},
		"parts":               {"Content-Type: multipart/byteranges; boundary=x|Content-Range: bytes 0-9/10", "0123456789", true, refuse},
		"coded":               {"Content-Encoding: gzip|Content-Range: bytes 0-9/10", "0123456789", true, refuse},
		"one as asked for":    {"Content-Range: bytes 1000-1029/9999", value[:30], true, refuse}, // not widened
		"begins with it":      {"Content-Range: bytes 1000-5999/6000", value[1:] + long[:5000-len(tail)], true, refuse},
		"begins too late":     {fmt.Sprintf("Content-Range: bytes 1500-%d/9999", 1500+len(tail)-1), tail, true, refuse},
		"of unknown size":     {"Content-Range: bytes 0-4999/*", long, true, "."},
		"ends early":          {"Content-Range: bytes 0-4999/9999", long, true, "."},
		"ends within a value": {fmt.Sprintf("Content-Range: bytes 0-%d/9999", 1000+len(tail)-1), long[:1000] + tail, true, refuse},
		"longer than it says": {"Content-Range: bytes 0-1009/1010", long[:1500], false, breaks},
		"cut short":           {"Content-Range: bytes 0-1999/2000", long[:1000] + tail, false, breaks},
		"gRPC, so to speak":   {"Content-Type: application/grpc|Content-Range: bytes 0-4999/5000", long[:5000], true, "."},
	} {
		protocols(t, func(t *testing.T, protocol string) {
			w := newWorld(t, protocol, handler(func(rw http.ResponseWriter, r *http.Request) {
				for line := range strings.SplitSeq(tt.head, "|") {
					if k, v, ok := strings.Cut(line, ": "); ok {
						rw.Header().Add(k, v)
					}
				}
				if tt.whole {
					rw.Header().Set("Content-Length", strconv.Itoa(len(tt.body)))
				}
				rw.WriteHeader(206)
				rw.(http.Flusher).Flush()
				io.WriteString(rw, tt.body)
			}))
			a := ranged(w, w.client(), "bytes=1000-1029")
			switch tt.want {
			case refuse:
				w.refused(a, 502, policy.Unscannable)
			case breaks:
				if a.err == nil {
					t.Errorf("%s: %d %q ended well", name, a.status, a.body)
				}
			default:
				if a.status != 206 || a.err != nil || a.body != strings.Repeat(tt.want, 30) {
					t.Errorf("%s: %d %q %v", name, a.status, a.body, a.err)
				}
			}
			if strings.Contains(a.all, value[:8]) {
				t.Errorf("%s: the guest reads %q", name, a.body)
			}
		})
	}
}

// A slice beside whole answers on one connection, without any value asked for.
func TestSliceOfStored(t *testing.T) {
	stored := new(bytes.Buffer)
	protocols(t, func(t *testing.T, protocol string) {
		stored.Reset()
		w := newWorld(t, protocol, handler(func(rw http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut {
				io.WriteString(stored, r.Header.Get("Authorization"))
				return
			}
			http.ServeContent(rw, r, "", time.Time{}, bytes.NewReader(stored.Bytes()))
		}))
		c := w.client()
		w.do(c, "PUT", "https://good.test/", nil, header("Authorization", "Bearer "+placeholder))
		if got := stored.String(); got != "Bearer "+value {
			t.Fatalf("upstream has stored %q", got)
		}
		var all strings.Builder
		for i := range len(stored.String()) {
			all.WriteString(ranged(w, c, fmt.Sprintf("bytes=%d-%d", i, i)).body)
		}
		if got := all.String(); got != "Bearer "+padded {
			t.Errorf("byte by byte the guest reads %q", got)
		}
	})
}
