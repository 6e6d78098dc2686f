package attack

import (
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/cutoutdev/cutout/internal/policy"
)

const (
	getGood  = "GET /echo HTTP/1.1\r\nHost: good.test\r\n"
	postGood = "POST /echo HTTP/1.1\r\nHost: good.test\r\n"
	authLine = "Authorization: " + bearer + "\r\n"
)

// B: which request is this.
var sectionB = append([]probe{
	{entry: "B3", name: "kept alive, then another Host", run: second(false), want: want{status: []int{421}, value: true}},
	{entry: "B3", name: "pipelined, then another Host", run: second(true), want: want{status: []int{421}, value: true}, only: "h1"},
	{entry: "B5", name: "host differs from :authority", run: ask("GET", "/echo", "good.test", "host", "evil.test", "Authorization", bearer), want: misdirected, only: "h2"},
	{entry: "B5", name: "no :authority", run: headers(":method", "GET", ":scheme", "https", ":path", "/echo", "authorization", bearer), want: misdirected, only: "h2"},
	{entry: "B5", name: "host alone", run: headers(":method", "GET", ":scheme", "https", ":path", "/echo", "host", "good.test", "authorization", bearer), want: misdirected, only: "h2"},
	{entry: "B5", name: "two :authority", run: headers(":method", "GET", ":scheme", "https", ":path", "/echo", ":authority", "good.test", ":authority", "good.test", "authorization", bearer), want: unanswered, only: "h2"},
	{entry: "B8", name: "TE in HTTP/2", run: ask("POST", "/echo", "good.test", "transfer-encoding", "chunked", "Authorization", bearer), want: want{status: []int{0, 400}}, only: "h2"},
	{entry: "B8", name: "CRLF in a value", run: ask("GET", "/echo", "good.test", "x", "a\r\nb: c", "Authorization", bearer), want: unanswered, only: "h2"},
	{entry: "B8", name: "CRLF in the path", run: ask("GET", "/a\r\nb: c", "good.test", "Authorization", bearer), want: want{status: []int{0, 400}}, only: "h2"},
	{entry: "B8", name: "Content-Length without DATA", run: ask("POST", "/echo", "good.test", "content-length", "5", "Authorization", bearer), want: want{status: []int{0, 400}}, only: "h2"},
	{entry: "B9", name: "websocket to a secret's host", run: ask("GET", "/ws", "good.test", "Connection", "Upgrade", "Upgrade", "websocket", "Authorization", bearer), want: forbidden(policy.UpgradeRefused), only: "h1"},
	{entry: "B9", name: "extended CONNECT", run: headers(":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":path", "/", ":authority", "good.test", "authorization", bearer), want: unanswered, only: "h2"},
	{entry: "B9", name: "CONNECT", run: headers(":method", "CONNECT", ":authority", "good.test:443", "authorization", bearer), want: forbidden(policy.Tunnelled), only: "h2"},
	{entry: "B10", name: "100-continue, fixed", run: expects("Content-Length: 5\r\n", "hello"), want: substituted, only: "h1"},
	{entry: "B10", name: "100-continue, chunked", run: expects("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"), want: substituted, only: "h1"},
	{entry: "B10", name: "100-continue, refused", run: bytesToGood("POST /echo HTTP/1.1\r\nHost: evil.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"), want: misdirected, only: "h1"},
	{
		entry: "B11", name: "placeholder in a trailer", run: bytesToGood(postGood + "Trailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: " + P + "\r\n\r\n"),
		want: want{status: []int{200}, carried: true}, only: "h1", check: carriedOnRecord,
	},
	{entry: "B11", name: "Host in a trailer", run: broken("0\r\nHost: evil.test\r\n\r\n"), want: want{status: []int{0, 400}, value: true}, only: "h1", check: incomplete},
	{entry: "B11", name: "Content-Length in a trailer", run: broken("0\r\nContent-Length: 5\r\n\r\n"), want: want{status: []int{0, 400}, value: true}, only: "h1", check: incomplete},
	{entry: "B12", name: "TRACE", run: ask("TRACE", "/echo", "good.test", "Authorization", bearer), want: forbidden(policy.TraceMethod)},
	{entry: "B12", name: "TRACK", run: ask("TRACK", "/echo", "good.test", "Authorization", bearer), want: forbidden(policy.TraceMethod)},
	{
		entry: "B18", name: "fields of one hop end here", only: "h1", want: substituted,
		run: ask("GET", "/echo", "good.test", "Authorization", bearer, "Proxy-Authorization", "Basic bWluZQ==", "Connection", "X-Mine", "X-Mine", "bWluZQ=="),
		check: func(b *boundary) error {
			if got := b.Received(); strings.Contains(got, "bWluZQ==") {
				return fmt.Errorf("a field of the guest's hop went on: %s", got)
			}
			return nil
		},
	},
	{
		entry: "B18", name: "a credential that is of one hop", only: "h1", want: want{status: []int{200}},
		run: ask("GET", "/echo", "good.test", "Authorization", bearer, "Connection", "Authorization"),
	},
	{
		entry: "B9", name: "101 with another key's accept", only: "h1", want: want{status: []int{502}, reason: policy.UpstreamFailed, value: true},
		run: ask("GET", "/ws", "good.test", "Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13",
			"Sec-WebSocket-Key", b64("0123456789abcdef"), "Authorization", bearer),
		change: func(b *boundary) { b.Answer(switches) },
	},
	{entry: "B16", name: "not HTTP inside TLS", run: bytesToGood("hello\r\nkey " + P + "\r\n"), want: malformed, only: "h1"},
}, append(rejected(), append(authorities(), chunks()...)...)...)

// rejected are heads that two parsers could read in two ways: B1, B6, B7, B9.
func rejected() []probe {
	var out []probe
	for _, x := range []struct{ entry, name, text string }{
		{"B1", "two Hosts, equal", getGood + "Host: good.test\r\n" + authLine + "\r\n"},
		{"B1", "two Hosts, different", getGood + "Host: evil.test\r\n" + authLine + "\r\n"},
		{"B1", "no Host", "GET /echo HTTP/1.1\r\n" + authLine + "\r\n"},
		{"B1", "empty Host", "GET /echo HTTP/1.1\r\nHost:\r\n" + authLine + "\r\n"},
		{"B6", "CL and TE", postGood + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n" + authLine + "\r\n0\r\n\r\n"},
		{"B6", "TE and CL", postGood + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n" + authLine + "\r\n0\r\n\r\n"},
		{"B6", "CL twice, equal", postGood + "Content-Length: 4\r\nContent-Length: 4\r\n" + authLine + "\r\nbody"},
		{"B6", "CL twice, different", postGood + "Content-Length: 4\r\nContent-Length: 5\r\n" + authLine + "\r\nbody"},
		{"B6", "CL list", postGood + "Content-Length: 4, 4\r\n" + authLine + "\r\nbody"},
		{"B6", "CL with a sign", postGood + "Content-Length: +4\r\n" + authLine + "\r\nbody"},
		{"B6", "space before the colon of TE", postGood + "Transfer-Encoding : chunked\r\n" + authLine + "\r\n0\r\n\r\n"},
		{"B6", "xchunked", postGood + "Transfer-Encoding: xchunked\r\n" + authLine + "\r\n0\r\n\r\n"},
		{"B6", "gzip, chunked", postGood + "Transfer-Encoding: gzip, chunked\r\n" + authLine + "\r\n0\r\n\r\n"},
		{"B6", "chunked twice", postGood + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n" + authLine + "\r\n0\r\n\r\n"},
		{"B7", "bare LF", "GET /echo HTTP/1.1\nHost: good.test\n" + authLine + "\n"},
		{"B7", "bare CR", getGood + "X: a\rb\r\n" + authLine + "\r\n"},
		{"B7", "leading LF", "\n" + getGood + authLine + "\r\n"},
		{"B7", "leading CRLF", "\r\n" + getGood + authLine + "\r\n"},
		{"B7", "obs-fold", getGood + "X: a\r\n b\r\n" + authLine + "\r\n"},
		{"B7", "NUL in a value", getGood + "X: a\x00b\r\n" + authLine + "\r\n"},
		{"B7", "space before a colon", getGood + "X : a\r\n" + authLine + "\r\n"},
		{"B7", "four words", "GET /echo x HTTP/1.1\r\nHost: good.test\r\n" + authLine + "\r\n"},
		{"B7", "lower-case version", "GET /echo http/1.1\r\nHost: good.test\r\n" + authLine + "\r\n"},
		{"B9", "h2c upgrade", getGood + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n" + authLine + "\r\n"},
		{"B9", "prior-knowledge HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"},
	} {
		out = append(out, probe{entry: x.entry, name: x.name, run: bytesToGood(x.text), want: malformed, only: "h1"})
	}
	return out
}

// authorities are B2 and B4.
func authorities() []probe {
	var out []probe
	for _, x := range []struct {
		entry, target, host string
		want                want
	}{
		{"B2", "https://evil.test/echo", "good.test", misdirected},
		{"B2", "https://good.test/echo", "evil.test", misdirected},
		{"B2", "https://user@good.test/echo", "good.test", misdirected},
		{"B2", "http://good.test/echo", "good.test", misdirected},
		{"B2", "https://good.test/echo", "good.test", substituted},
		{"B4", "/echo", "good.test:9999", misdirected},
		{"B4", "/echo", "[::1]", misdirected},
		{"B4", "/echo", "good.test%00.evil", misdirected},
		{"B4", "/echo", "GOOD.test", substituted},
		{"B4", "/echo", "good.test.", substituted},
		{"B4", "/echo", "good.test:443", substituted},
		{"B4", "/echo", "user@good.test", want{status: []int{0, 400, 421}}}, // HTTP/2: a reset stream
	} {
		only := ""
		if strings.Contains(x.target, "://") {
			only = "h1"
		}
		if x.host == "good.test%00.evil" {
			x.want.status, x.want.reason = []int{400, 421}, ""
		}
		out = append(out, probe{
			entry: x.entry, name: x.target + " for " + x.host, only: only,
			run: ask("GET", x.target, x.host, "Authorization", bearer), want: x.want,
		})
	}
	return out
}

// chunks are the bodies of B6 whose framing breaks behind a good head: the
// upstream's message is left incomplete.
func chunks() []probe {
	var out []probe
	for name, text := range map[string]string{
		"bare LF after a size": "5\nhello\r\n0\r\n\r\n",
		"an extension":         "5;a=b\r\nhello\r\n0\r\n\r\n",
		"17 digits":            "00000000000000005\r\nhello\r\n0\r\n\r\n",
		"a negative size":      "-5\r\nhello\r\n0\r\n\r\n",
		"a plus":               "+5\r\nhello\r\n0\r\n\r\n",
		"0x":                   "0x5\r\nhello\r\n0\r\n\r\n",
		"data too long":        "5\r\nhello!\r\n0\r\n\r\n",
	} {
		out = append(out, probe{entry: "B6", name: "chunk with " + name, run: broken(text), want: want{status: []int{0, 400}, value: true}, only: "h1", check: incomplete})
	}
	return out
}

func broken(text string) func(*boundary) outcome {
	return bytesToGood(postGood + "Transfer-Encoding: chunked\r\n" + authLine + "\r\n3\r\nabc\r\n" + text)
}

func incomplete(b *boundary) error {
	for _, r := range b.Good.Requests() {
		if r.BodyErr == "" {
			return fmt.Errorf("the upstream got a whole message: %s", r.Text())
		}
	}
	return nil
}

func carriedOnRecord(b *boundary) error {
	if !b.Recorded(policy.SurfaceOff) {
		return fmt.Errorf("no event says that the placeholder was carried")
	}
	return nil
}

// headers is a probe of one HEADERS frame to good.test.
func headers(fields ...string) func(*boundary) outcome {
	return func(b *boundary) outcome {
		c, err := b.Secure(target{})
		if err != nil {
			return outcome{err: err}
		}
		defer c.Close()
		f := b.frames(c)
		f.Head(1, true, fields...)
		return f.outcome(1)
	}
}

// second sends an honest request and then one for another host on the same
// connection.
func second(pipelined bool) func(*boundary) outcome {
	return func(b *boundary) outcome {
		c, err := b.Secure(target{})
		if err != nil {
			return outcome{err: err}
		}
		defer c.Close()
		other := "GET /echo HTTP/1.1\r\nHost: evil.test\r\n" + authLine + "\r\n"
		switch {
		case b.Protocol == "h2":
			f := b.frames(c)
			for id, authority := range []string{"good.test", "evil.test"} {
				f.Head(uint32(2*id+1), true, ":method", "GET", ":scheme", "https", ":path", "/echo", ":authority", authority, "authorization", bearer)
				if o := f.outcome(uint32(2*id + 1)); id == 1 || o.status != 200 {
					return o
				}
			}
		case pipelined:
			o := b.raw(c, getGood+authLine+"\r\n"+other, 2)
			if o[0].status == 200 {
				return o[1]
			}
		}
		if o := b.raw(c, getGood+authLine+"\r\n", 1)[0]; o.status != 200 {
			return o
		}
		return b.raw(c, other, 1)[0]
	}
}

// expects sends a body only after 100 Continue.
func expects(framing, body string) func(*boundary) outcome {
	return func(b *boundary) outcome {
		c, err := b.Secure(target{})
		if err != nil {
			return outcome{err: err}
		}
		defer c.Close()
		io.WriteString(c, postGood+authLine+"Expect: 100-continue\r\n"+framing+"\r\n")
		interim := make([]byte, len("HTTP/1.1 100 Continue\r\n\r\n"))
		if _, err := io.ReadFull(c, interim); string(interim) != "HTTP/1.1 100 Continue\r\n\r\n" {
			return outcome{text: string(interim), err: err}
		}
		return b.raw(c, body, 1)[0]
	}
}

// switches changes the protocol without having read what was asked for.
func switches(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Connection", "Upgrade")
	w.Header().Set("Upgrade", "websocket")
	w.Header().Set("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
	w.WriteHeader(http.StatusSwitchingProtocols)
}
