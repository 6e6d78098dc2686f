package attack

import (
	"fmt"
	"io"
	"strings"
)

// B6, B8, B9, B10, B11, B16: messages that two parsers could read in two ways,
// or that are not finished.
var sectionMessage = join(downgrades(), moreChunks(), []probe{
	{
		entry: "B9", name: "a handshake that is answered 200, then another Host", only: "h1", want: want{status: []int{421}, value: true},
		run: func(b *boundary) outcome {
			c, err := b.Secure(target{})
			if err != nil {
				return outcome{err: err}
			}
			defer c.Close()
			if o := b.raw(c, strings.Replace(strings.TrimSuffix(socketHead, "\r\n"), "/ws", "/echo", 1)+authLine+"\r\n", 1)[0]; o.status != 200 {
				return outcome{err: fmt.Errorf("the handshake: %d %w", o.status, o.err)}
			}
			return b.raw(c, "GET /echo HTTP/1.1\r\nHost: evil.test\r\n"+authLine+"\r\n", 1)[0]
		},
	},
	{entry: "B10", name: "100-continue, 1 MiB", only: "h1", run: expects("Content-Length: 1048576\r\n", strings.Repeat("x", 1<<20)), want: substituted},
	{
		entry: "B10", name: "100-continue, no body", only: "h1", want: substituted, check: nothingInterim,
		run: bytesToGood("GET /echo HTTP/1.1\r\nHost: good.test\r\nExpect: 100-continue\r\n" + authLine + "\r\n"),
	},
	{entry: "B10", name: "100-continue, HTTP/2", only: "h2", run: post("hello", "Expect", "100-continue", "Authorization", bearer), want: substituted},
	{
		entry: "B10", name: "an expectation that nobody knows", only: "h1", want: want{status: []int{417}},
		run: bytesToGood(postGood + "Expect: 200-maybe\r\nContent-Length: 5\r\n" + authLine + "\r\nhello"),
	},
	{entry: "B11", name: "Transfer-Encoding in a trailer", run: broken("0\r\nTransfer-Encoding: chunked\r\n\r\n"), want: want{status: []int{0, 400}, value: true}, only: "h1", check: incomplete},
	{
		entry: "B11", name: "a credential in a trailer", only: "h1", check: carriedOnRecord, want: want{status: []int{200}, carried: true},
		run: bytesToGood(postGood + "Trailer: Authorization\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nAuthorization: " + bearer + "\r\n\r\n"),
	},
	{entry: "B11", name: ":authority in a trailer", only: "h2", want: want{status: []int{0, 400}}, run: trailers(":authority", "evil.test")},
	{entry: "B16", name: "binary inside TLS", only: "h1", run: bytesToGood("\x00\x01\x02" + P + "\r\n\r\n"), want: malformed},
	{entry: "B16", name: "SSH inside TLS", only: "h1", run: bytesToGood("SSH-2.0-x\r\n" + P + "\r\n"), want: malformed},
	{entry: "B16", name: "a hello inside TLS", only: "h1", run: bytesToGood(hello{names: []string{"good.test"}, lists: 1}.record()), want: malformed},
	{entry: "B16", name: "not HTTP/2 inside TLS that is to be it", only: "h2", want: unanswered, check: nothingSent, run: func(b *boundary) outcome {
		c, err := b.Secure(target{})
		if err != nil {
			return outcome{err: err}
		}
		defer c.Close()
		io.WriteString(c, getGood+authLine+"\r\n")
		got, _ := io.ReadAll(c)
		return b.got(outcome{text: string(got)})
	}},
})

// nothingInterim checks that no 100 came unasked.
func nothingInterim(b *boundary) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if strings.Contains(b.read.String(), "100 Continue") {
		return fmt.Errorf("the guest was told to go on with nothing")
	}
	return nil
}

// trailers is a probe of a body and trailers over HTTP/2.
func trailers(fields ...string) func(*boundary) outcome {
	return func(b *boundary) outcome {
		c, err := b.Secure(target{})
		if err != nil {
			return outcome{err: err}
		}
		defer c.Close()
		f := b.frames(c)
		f.Head(1, false, ":method", "POST", ":scheme", "https", ":path", "/echo", ":authority", "good.test", "trailer", "x-sum")
		f.WriteData(1, false, []byte("hello"))
		f.Head(1, true, fields...)
		return f.outcome(1)
	}
}

// downgrades are B8: what HTTP/2 can say and HTTP/1 cannot. None of it goes on
// as something else.
func downgrades() []probe {
	head := func(change ...string) []string {
		fields := []string{":method", "GET", ":scheme", "https", ":path", "/echo", ":authority", "good.test", "authorization", bearer}
		for i := 0; i < len(change); i += 2 {
			found := false
			for j := 0; j < len(fields); j += 2 {
				if fields[j] == change[i] {
					fields[j+1], found = change[i+1], true
				}
			}
			if !found {
				fields = append(fields, change[i], change[i+1])
			}
		}
		return fields
	}
	var out []probe
	for _, x := range []struct {
		name   string
		fields []string
	}{
		{"CRLF in a name", head("x\r\nhost: evil.test\r\ny", "1")},
		{"LF in a name", head("x\nhost", "evil.test")},
		{"a colon in a name", head("host: evil.test\r\nx", "1")},
		{"a space in a name", head("transfer-encoding ", "chunked")},
		{"an upper-case name", head("X-Upper", "1")},
		{"NUL in a value", head("x", "a\x00b")},
		{"LF in a value", head("x", "a\nhost: evil.test")},
		{"CRLF in :method", head(":method", "GET / HTTP/1.1\r\nHost: evil.test\r\n\r\nGET")},
		{"a space in :method", head(":method", "GET /x")},
		{"an empty :method", head(":method", "")},
		{"CRLF in :path", head(":path", "/ HTTP/1.1\r\nHost: evil.test\r\n\r\nGET /x")},
		{"a space in :path", head(":path", "/a HTTP/1.1")},
		{"a :path without a slash", head(":path", "echo")},
		{"an absolute :path", head(":path", "https://evil.test/echo")},
		{"an empty :path", head(":path", "")},
		{"CRLF in :authority", head(":authority", "good.test\r\nx: y")},
		{"CRLF in :scheme", head(":scheme", "https\r\nx: y")},
		{"an unknown pseudo-field", head(":proxy", "evil.test")},
		{"Connection", head("connection", "close")},
		{"Keep-Alive", head("keep-alive", "timeout=5")},
		{"Proxy-Connection", head("proxy-connection", "close")},
		{"Upgrade", head("upgrade", "websocket")},
		{"TE: gzip", head("te", "gzip")},
	} {
		out = append(out, probe{entry: "B8", name: x.name, only: "h2", run: headers(x.fields...), want: want{status: []int{0, 400, 421}}, check: nothingSent})
	}
	return append(out, probe{
		entry: "B8", name: "http as :scheme is not passed on", only: "h2", want: substituted,
		run: headers(head(":scheme", "http")...),
	})
}

// moreChunks are bodies of B6 that no other parser has been seen to take.
func moreChunks() []probe {
	var out []probe
	for name, text := range map[string]string{
		"a size of 2^64":         "10000000000000000\r\nhello\r\n0\r\n\r\n",
		"no size":                "\r\nhello\r\n0\r\n\r\n",
		"a space behind a size":  "5 \r\nhello\r\n0\r\n\r\n",
		"a tab before a size":    "\t5\r\nhello\r\n0\r\n\r\n",
		"an underscore":          "1_0\r\nhello\r\n0\r\n\r\n",
		"bare LF behind data":    "5\r\nhello\n0\r\n\r\n",
		"bare CR behind a size":  "5\rhello\r\n0\r\n\r\n",
		"NUL behind a size":      "5\x00\r\nhello\r\n0\r\n\r\n",
		"bare LF in the trailer": "0\r\nX: y\n\r\n",
	} {
		out = append(out, probe{entry: "B6", name: "chunk with " + name, run: broken(text), want: want{status: []int{0, 400}, value: true}, only: "h1", check: incomplete})
	}
	for name, text := range map[string]string{
		"TE in HTTP/1.0":        "POST /echo HTTP/1.0\r\nHost: good.test\r\nTransfer-Encoding: chunked\r\n" + authLine + "\r\n0\r\n\r\n",
		"chunked;q=1":           postGood + "Transfer-Encoding: chunked;q=1\r\n" + authLine + "\r\n0\r\n\r\n",
		"chunked, identity":     postGood + "Transfer-Encoding: chunked, identity\r\n" + authLine + "\r\n0\r\n\r\n",
		"identity":              postGood + "Transfer-Encoding: identity\r\nContent-Length: 5\r\n" + authLine + "\r\nhello",
		"vertical tab, chunked": postGood + "Transfer-Encoding: \vchunked\r\n" + authLine + "\r\n0\r\n\r\n",
		"an empty TE":           postGood + "Transfer-Encoding:\r\nContent-Length: 5\r\n" + authLine + "\r\nhello",
		"CL of 2^64":            postGood + "Content-Length: 18446744073709551616\r\n" + authLine + "\r\nhello",
		"an empty CL":           postGood + "Content-Length:\r\n" + authLine + "\r\nhello",
		"CL in hexadecimal":     postGood + "Content-Length: 0x5\r\n" + authLine + "\r\nhello",
		"a negative CL":         postGood + "Content-Length: -5\r\n" + authLine + "\r\nhello",
	} {
		out = append(out, probe{entry: "B6", name: name, run: bytesToGood(text), want: malformed, only: "h1", check: nothingSent})
	}
	return out
}
