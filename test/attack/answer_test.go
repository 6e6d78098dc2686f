package attack

import (
	"bytes"
	"compress/flate"
	"compress/zlib"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/coder/websocket"
	"github.com/klauspost/compress/zstd"

	"github.com/cutoutdev/cutout/internal/policy"
)

// C2, C3, C4, C5: the ways in which an answer may hold the value.
var sectionAnswer = join(coded(), spelled(), sliced(), readBack(), []probe{
	{
		entry: "C2", name: "a gRPC message", only: "h2", want: scrubbed, check: placeholderRead,
		run: func(b *boundary) outcome {
			c, err := b.Secure(target{})
			if err != nil {
				return outcome{err: err}
			}
			defer c.Close()
			return b.send(c, "POST", "/a.B/C", "good.test", "\x00\x00\x00\x00\x00", "Content-Type", "application/grpc", "Te", "trailers", "Authorization", bearer)
		},
		change: func(b *boundary) {
			b.Answer(func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				message := "\x0a" + string(rune(len(r.Header.Get("Authorization")))) + r.Header.Get("Authorization")
				w.Header().Set("Content-Type", "application/grpc")
				w.Header().Set("Trailer", "Grpc-Status")
				w.Write(append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...))
				w.Header().Set("Grpc-Status", "0")
			})
		},
	},
	{entry: "C2", name: "WebSocket, text", only: "h1", run: overSocket, change: socketEcho(websocket.MessageText), want: want{status: []int{101}, value: true, scrubs: true}, check: placeholderRead},
	{entry: "C2", name: "WebSocket, binary", only: "h1", run: overSocket, change: socketEcho(websocket.MessageBinary), want: want{status: []int{101}, value: true, scrubs: true}},
	{
		entry: "C2", name: "server-sent events, split in the value", run: echoed("/"), want: scrubbed, check: placeholderRead,
		change: func(b *boundary) {
			b.Answer(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/event-stream")
				text := "data: " + r.Header.Get("Authorization") + "\n\n"
				for _, part := range []string{text[:20], text[20:30], text[30:]} {
					io.WriteString(w, part)
					w.(http.Flusher).Flush()
					time.Sleep(10 * time.Millisecond)
				}
			})
		},
	},
})

// placeholderRead checks that the guest reads the placeholder in its place.
func placeholderRead(b *boundary) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if read := b.read.String(); !strings.Contains(read, P) {
		return fmt.Errorf("the guest reads no placeholder: %.300q", read)
	}
	return nil
}

// echoing makes good.test answer with what it was authorised by, changed by
// encode.
func echoing(encode func(value string, h http.Header) string) func(*boundary) {
	return func(b *boundary) {
		b.Answer(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, encode(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), w.Header()))
		})
	}
}

// coded are the content codings of C2.
func coded() []probe {
	through := func(open func(io.Writer) io.WriteCloser) func(string) string {
		return func(s string) string {
			var out bytes.Buffer
			w := open(&out)
			io.WriteString(w, s)
			w.Close()
			return out.String()
		}
	}
	br := through(func(w io.Writer) io.WriteCloser { return brotli.NewWriter(w) })
	zst := through(func(w io.Writer) io.WriteCloser { return must(zstd.NewWriter(w)) })
	deflate := through(func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) })
	raw := through(func(w io.Writer) io.WriteCloser { return must(flate.NewWriter(w, 9)) })
	var out []probe
	for _, x := range []struct {
		name, coding string
		encode       func(string) string
	}{
		{"br", "br", br},
		{"zstd", "zstd", zst},
		{"deflate", "deflate", deflate},
		{"deflate without a head", "deflate", raw},
		{"gzip twice", "gzip, gzip", func(s string) string { return zipped(zipped(s)) }},
		{"br, then gzip", "br, gzip", func(s string) string { return zipped(br(s)) }},
		{"gzip by its old name", "x-gzip", zipped},
		{"two members of gzip, cut in the value", "gzip", func(s string) string { return zipped(s[:9]) + zipped(s[9:]) }},
		{"two frames of zstd, cut in the value", "zstd", func(s string) string { return zst(s[:9]) + zst(s[9:]) }},
	} {
		out = append(out, probe{
			entry: "C2", name: x.name, run: echoed("/"), want: scrubbed, check: placeholderRead,
			change: echoing(func(v string, h http.Header) string {
				h.Set("Content-Encoding", x.coding)
				h.Set("Content-Type", "text/plain")
				return x.encode(v)
			}),
		})
	}
	for name, body := range map[string]func(string) string{
		"gzip, cut short":          func(s string) string { return zipped(s)[:len(zipped(s))-9] },
		"not gzip, though it says": func(s string) string { return s },
	} {
		out = append(out, probe{
			entry: "C2", name: name, run: echoed("/"), want: want{status: []int{0, 502}, reason: policy.Unscannable, value: true},
			change: echoing(func(v string, h http.Header) string {
				h.Set("Content-Encoding", "gzip")
				return body(v)
			}),
		})
	}
	return out
}

// spelled are the spellings of C3.
func spelled() []probe {
	every := func(format string) func(string) string {
		return func(s string) string {
			var out strings.Builder
			for _, c := range []byte(s) {
				fmt.Fprintf(&out, format, c)
			}
			return out.String()
		}
	}
	wrap := func(s string, n int, end string) string {
		var out strings.Builder
		for ; len(s) > n; s = s[n:] {
			out.WriteString(s[:n] + end)
		}
		return out.String() + s
	}
	long := func(s string) string { return strings.Repeat("before ", 20) + s + strings.Repeat(" behind", 20) }
	var out []probe
	for _, x := range []struct {
		name   string
		encode func(string) string
	}{
		{"url-safe Base64", func(s string) string { return base64.URLEncoding.EncodeToString([]byte("??>" + s)) }},
		{"url-safe Base64, not padded", func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte("x" + s)) }},
		{"Base64, not padded", func(s string) string { return base64.RawStdEncoding.EncodeToString([]byte("xy" + s)) }},
		{"Base64 in lines of 76, CRLF", func(s string) string { return wrap(b64(long(s)), 76, "\r\n") }},
		{"Base64 in lines of 64, LF", func(s string) string { return wrap(b64(long(s)), 64, "\n") }},
		{"Base64 of user:value", func(s string) string { return b64("somebody:" + s) }},
		{"percent, upper case, all of it", every("%%%02X")},
		{"percent, lower case, all of it", every("%%%02x")},
		{"JSON, all of it", every(`\u%04x`)},
		{"JSON, all of it, upper case", every(`\u%04X`)},
		{"HTML, decimal", every("&#%d;")},
		{"HTML, hexadecimal", every("&#x%x;")},
		{"HTML, hexadecimal, upper case", every("&#x%X;")},
		{"hexadecimal", func(s string) string { return hex.EncodeToString([]byte(s)) }},
		{"hexadecimal, upper case", func(s string) string { return strings.ToUpper(hex.EncodeToString([]byte(s))) }},
		{"many times over", func(s string) string { return strings.Repeat(s, 100) }},
		{"behind its own beginning", func(s string) string { return s[:len(s)-1] + s }},
	} {
		out = append(out, probe{
			entry: "C3", name: x.name, run: echoed("/"), want: scrubbed,
			change: echoing(func(v string, _ http.Header) string { return "<" + x.encode(v) + ">" }),
		})
	}
	// Of a value with marks encoders escape what they must, each in its way.
	const marks = `one/2+3=four 5&6"7<8>'9-0`
	for name, encode := range map[string]func(string) string{
		"a query of Go":       url.QueryEscape,
		"a path of Go":        url.PathEscape,
		"encodeURIComponent":  func(s string) string { return strings.NewReplacer("+", "%20", "%27", "'").Replace(url.QueryEscape(s)) },
		"a query, lower case": func(s string) string { return lowerEscapes(url.QueryEscape(s)) },
		"JSON of Go":          func(s string) string { return string(must(json.Marshal(s))) },
		"JSON of others":      strconv.Quote,
		"JSON of PHP":         func(s string) string { return strings.ReplaceAll(strconv.Quote(s), "/", `\/`) },
		"HTML of Go":          html.EscapeString,
		"HTML of Python": func(s string) string {
			return strings.NewReplacer("&#39;", "&#x27;", "&#34;", "&quot;").Replace(html.EscapeString(s))
		},
	} {
		var seen atomic.Value
		out = append(out, probe{
			entry: "C3", name: name, run: echoed("/"), want: want{status: []int{200}, scrubs: true},
			change: func(b *boundary) {
				b.Secret.Value = b.Value(marks)
				echoing(func(v string, _ http.Header) string { seen.Store(encode(v)); return "<" + encode(v) + ">" })(b)
			},
			check: func(b *boundary) error {
				b.mu.Lock()
				defer b.mu.Unlock()
				if text := strings.Trim(seen.Load().(string), `"`); !strings.Contains(text, "four") || strings.Contains(b.read.String(), text) {
					return fmt.Errorf("the guest reads %q", text)
				}
				return nil
			},
		})
	}
	return out
}

// lowerEscapes writes the digits of percent escapes in lower case.
func lowerEscapes(s string) string {
	b := []byte(s)
	for i := 0; i+2 < len(b); i++ {
		if b[i] == '%' {
			copy(b[i:], bytes.ToLower(b[i:i+3]))
		}
	}
	return string(b)
}

// socketEcho sends what a handshake was authorised by in a message, in two
// fragments.
func socketEcho(kind websocket.MessageType) func(*boundary) {
	return func(b *boundary) {
		b.Answer(func(w http.ResponseWriter, r *http.Request) {
			c, err := websocket.Accept(w, r, nil)
			if err != nil {
				return
			}
			defer c.CloseNow()
			m, err := c.Writer(r.Context(), kind)
			if err != nil {
				return
			}
			text := r.Header.Get("Authorization")
			io.WriteString(m, text[:20])
			io.WriteString(m, text[20:])
			m.Close()
			c.Close(websocket.StatusNormalClosure, "")
		})
	}
}

func overSocket(b *boundary) outcome {
	c, err := b.Secure(target{})
	if err != nil {
		return outcome{err: err}
	}
	defer c.Close()
	io.WriteString(c, strings.TrimSuffix(socketHead, "\r\n")+authLine+"\r\n"+masked(0x88, 2, "\x03\xe8"))
	all, err := io.ReadAll(c)
	if !strings.HasPrefix(string(all), "HTTP/1.1 101") {
		return outcome{text: string(all), err: errors.Join(errors.New("no 101"), err)}
	}
	return b.got(outcome{101, string(all), nil})
}

// keeps makes good.test store what it was authorised by and give it out at
// /kept, whoever asks.
func keeps(b *boundary) {
	var kept atomic.Value
	b.Answer(func(w http.ResponseWriter, r *http.Request) {
		if v := r.Header.Get("Authorization"); v != "" {
			kept.Store("the key is " + strings.TrimPrefix(v, "Bearer ") + ", keep it")
			return
		}
		text, _ := kept.Load().(string)
		switch r.URL.Path {
		case "/parts":
			w.Header().Set("Content-Type", "multipart/byteranges; boundary=x")
			w.WriteHeader(http.StatusPartialContent)
			fmt.Fprintf(w, "--x\r\nContent-Range: bytes 11-30/99\r\n\r\n%s\r\n--x\r\nContent-Range: bytes 31-60/99\r\n\r\n%s\r\n--x--\r\n", text[11:31], text[31:])
		case "/half":
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 20-%d/%d", len(text)-1, len(text)))
			w.WriteHeader(http.StatusPartialContent)
			io.WriteString(w, text[20:])
		default:
			http.ServeContent(w, r, "kept.txt", time.Time{}, strings.NewReader(text))
		}
	})
}

// later stores the value and then asks without it.
func later(ask func(b *boundary, again func(method, path string, fields ...string) outcome) outcome) func(*boundary) outcome {
	return func(b *boundary) outcome {
		if o := echoed("/")(b); o.status != 200 {
			return o
		}
		return ask(b, func(method, path string, fields ...string) outcome {
			c, err := b.Secure(target{})
			if err != nil {
				return outcome{err: err}
			}
			defer c.Close()
			return b.request(c, method, path, "good.test", fields...)
		})
	}
}

// sliced are C4: parts of a stored value, which a later request asks for.
func sliced() []probe {
	once := func(method, path string, fields ...string) func(*boundary) outcome {
		return later(func(_ *boundary, again func(string, string, ...string) outcome) outcome {
			return again(method, path, fields...)
		})
	}
	return []probe{
		{entry: "C4", name: "stored, whole", change: keeps, run: once("GET", "/kept"), want: scrubbed, check: placeholderRead},
		{entry: "C4", name: "stored, from its middle on", change: keeps, run: once("GET", "/kept", "Range", "bytes=20-"), want: want{status: []int{206}, value: true, scrubs: true}},
		{entry: "C4", name: "stored, its last bytes", change: keeps, run: once("GET", "/kept", "Range", "bytes=-20"), want: want{status: []int{200, 206}, value: true}},
		{
			entry: "C4", name: "stored, in slices of four bytes", change: keeps, want: want{status: []int{206}, value: true, scrubs: true},
			run: later(func(b *boundary, again func(string, string, ...string) outcome) outcome {
				var all strings.Builder
				var o outcome
				for at := 8; at < 52; at += 4 {
					o = again("GET", "/kept", "Range", fmt.Sprintf("bytes=%d-%d", at, at+3))
					if o.status != 206 {
						return o
					}
					lines := strings.Split(strings.TrimRight(o.text, "\r\n"), "\n")
					all.WriteString(lines[len(lines)-1])
				}
				b.got(outcome{text: all.String()})
				return o
			}),
		},
		{entry: "C4", name: "stored, two ranges", change: keeps, run: once("GET", "/kept", "Range", "bytes=11-30,31-60"), want: scrubbed, check: func(b *boundary) error {
			if strings.Contains(b.Received(), "bytes=11-30,31-60") {
				return errors.New("the upstream got both ranges")
			}
			return nil
		}},
		{entry: "C4", name: "stored, in parts that nobody asked for", change: keeps, run: once("GET", "/parts"), want: want{status: []int{502}, reason: policy.Unscannable, value: true}},
		{entry: "C4", name: "stored, a slice that nobody asked for", change: keeps, run: once("GET", "/half"), want: want{status: []int{502}, reason: policy.Unscannable, value: true}},
		{entry: "C4", name: "stored, another slice than asked for", change: keeps, run: once("GET", "/half", "Range", "bytes=0-3"), want: want{status: []int{502}, reason: policy.Unscannable, value: true}},
		{entry: "C4", name: "stored, HEAD", change: keeps, run: once("HEAD", "/kept"), want: want{status: []int{200}, value: true}, only: "h2"},
		{entry: "C4", name: "stored, If-Range", change: keeps, run: once("GET", "/kept", "Range", "bytes=20-40", "If-Range", `"x"`), want: want{status: []int{200, 206}, value: true, scrubs: true}},
	}
}

// readBack are C5: a placeholder that is stored comes back as one.
func readBack() []probe {
	kept := func(b *boundary) {
		var body atomic.Value
		b.Answer(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == "POST" {
				all, _ := io.ReadAll(r.Body)
				body.Store(string(all))
				return
			}
			text, _ := body.Load().(string)
			io.WriteString(w, text)
		})
	}
	stored := func(b *boundary) outcome {
		if o := post(`{"note":"`+P+`"}`, "Content-Type", "application/json")(b); o.status != 200 {
			return o
		}
		return ask("GET", "/", "good.test")(b)
	}
	return []probe{
		{entry: "C5", name: "stored, surface off, read back", change: kept, run: stored, want: want{status: []int{200}, carried: true}, check: placeholderRead},
		{entry: "C5", name: "stored, surface on, read back", change: func(b *boundary) { kept(b); inBodies(b) }, run: stored, want: scrubbed, check: placeholderRead},
		{
			entry: "C5", name: "stored, surface off, read back by another host's server", want: want{status: []int{200}, carried: true}, check: placeholderRead,
			run: func(b *boundary) outcome {
				if o := stored(b); o.status != 200 {
					return o
				}
				return unopened("evil.test")(b)
			},
			change: func(b *boundary) {
				kept(b)
				evil := b.Upstream(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					for _, r := range b.Good.Requests() { // the two are in league
						io.WriteString(w, r.Text())
					}
				}), "evil.test")
				b.Routes.Set(netip.AddrPortFrom(evilAddr, 443), evil.Addr())
			},
		},
	}
}
