package reframe

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const good = "GET /ok HTTP/1.1\r\nHost: good.test\r\n\r\n"

// The corpus of ATTACKS B: what is refused, and why.
var refused = []struct {
	name, in string
	fault    Fault
}{
	{"B1 two hosts", "GET / HTTP/1.1\r\nHost: good.test\r\nHost: evil.test\r\n\r\n", TwoHosts},
	{"B1 two equal hosts", "GET / HTTP/1.1\r\nHost: good.test\r\nhost: good.test\r\n\r\n", TwoHosts},
	{"B1 no host", "GET / HTTP/1.1\r\nX: y\r\n\r\n", NoHost},
	{"B1 empty host", "GET / HTTP/1.1\r\nHost: \r\n\r\n", NoHost},
	{"B4 userinfo", "GET / HTTP/1.1\r\nHost: user@good.test\r\n\r\n", BadHost},
	{"B4 space in host", "GET / HTTP/1.1\r\nHost: good.test evil.test\r\n\r\n", BadHost},
	{"B4 path in host", "GET / HTTP/1.1\r\nHost: good.test/x\r\n\r\n", BadHost},
	{"B6 length and chunked", "POST / HTTP/1.1\r\nHost: good.test\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", TwoFramings},
	{"B6 chunked and length", "POST / HTTP/1.1\r\nHost: good.test\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n", TwoFramings},
	{"B6 two lengths", "POST / HTTP/1.1\r\nHost: good.test\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", TwoLengths},
	{"B6 two equal lengths", "POST / HTTP/1.1\r\nHost: good.test\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", TwoLengths},
	{"B6 list of lengths", "POST / HTTP/1.1\r\nHost: good.test\r\nContent-Length: 5, 5\r\n\r\nhello", BadLength},
	{"B6 negative length", "POST / HTTP/1.1\r\nHost: good.test\r\nContent-Length: -5\r\n\r\nhello", BadLength},
	{"B6 signed length", "POST / HTTP/1.1\r\nHost: good.test\r\nContent-Length: +5\r\n\r\nhello", BadLength},
	{"B6 hexadecimal length", "POST / HTTP/1.1\r\nHost: good.test\r\nContent-Length: 0x5\r\n\r\nhello", BadLength},
	{"B6 empty length", "POST / HTTP/1.1\r\nHost: good.test\r\nContent-Length:\r\n\r\nhello", BadLength},
	{"B6 long length", "POST / HTTP/1.1\r\nHost: good.test\r\nContent-Length: 18446744073709551621\r\n\r\nhello", BadLength},
	{"B6 space before the coding's colon", "POST / HTTP/1.1\r\nHost: good.test\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", BadFieldName},
	{"B6 xchunked", "POST / HTTP/1.1\r\nHost: good.test\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", BadCoding},
	{"B6 gzip, chunked", "POST / HTTP/1.1\r\nHost: good.test\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", BadCoding},
	{"B6 chunked, chunked", "POST / HTTP/1.1\r\nHost: good.test\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", BadCoding},
	{"B6 chunked twice", "POST / HTTP/1.1\r\nHost: good.test\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", BadCoding},
	{"B6 identity", "POST / HTTP/1.1\r\nHost: good.test\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", BadCoding},
	{"B6 chunked with a vertical tab", "POST / HTTP/1.1\r\nHost: good.test\r\nTransfer-Encoding: \vchunked\r\n\r\n0\r\n\r\n", BadFieldValue},
	{"B6 chunked in HTTP/1.0", "POST / HTTP/1.0\r\nHost: good.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", BadCoding},
	{"B7 bare LF", "GET / HTTP/1.1\nHost: good.test\n\n", BadLineEnd},
	{"B7 bare LF in the head", "GET / HTTP/1.1\r\nHost: good.test\nX: y\r\n\r\n", BadLineEnd},
	{"B7 bare LF at the end", "GET / HTTP/1.1\r\nHost: good.test\r\n\n", BadLineEnd},
	{"B7 bare CR", "GET / HTTP/1.1\r\nX: a\rHost: evil.test\r\nHost: good.test\r\n\r\n", BadLineEnd},
	{"B7 CR CR LF", "GET / HTTP/1.1\r\r\nHost: good.test\r\n\r\n", BadLineEnd},
	{"B7 leading CR LF", "\r\nGET / HTTP/1.1\r\nHost: good.test\r\n\r\n", EmptyLine},
	{"B7 leading LF", "\nGET / HTTP/1.1\r\nHost: good.test\r\n\r\n", BadLineEnd},
	{"B7 folded", "GET / HTTP/1.1\r\nHost: good.test\r\nX: a\r\n b\r\n\r\n", FoldedLine},
	{"B7 folded host", "GET / HTTP/1.1\r\nHost:\r\n good.test\r\n\r\n", NoHost},
	{"B7 folded first line", "GET / HTTP/1.1\r\n Host: good.test\r\n\r\n", FoldedLine},
	{"B7 NUL in a value", "GET / HTTP/1.1\r\nHost: good.test\r\nX: a\x00b\r\n\r\n", BadFieldValue},
	{"B7 DEL in a value", "GET / HTTP/1.1\r\nHost: good.test\r\nX: a\x7fb\r\n\r\n", BadFieldValue},
	{"B7 NUL in a name", "GET / HTTP/1.1\r\nHost: good.test\r\nX\x00: a\r\n\r\n", BadFieldName},
	{"B7 NUL in the target", "GET /\x00 HTTP/1.1\r\nHost: good.test\r\n\r\n", BadTarget},
	{"B7 space before colon", "GET / HTTP/1.1\r\nHost : good.test\r\n\r\n", BadFieldName},
	{"B7 no colon", "GET / HTTP/1.1\r\nHost good.test\r\n\r\n", BadFieldName},
	{"B7 no name", "GET / HTTP/1.1\r\n: good.test\r\n\r\n", BadFieldName},
	{"B7 four words", "GET / x HTTP/1.1\r\nHost: good.test\r\n\r\n", BadRequestLine},
	{"B7 two words", "GET /\r\nHost: good.test\r\n\r\n", BadRequestLine},
	{"B7 two spaces", "GET  / HTTP/1.1\r\nHost: good.test\r\n\r\n", BadRequestLine},
	{"B7 space at the end", "GET / HTTP/1.1 \r\nHost: good.test\r\n\r\n", BadRequestLine},
	{"B7 space at the start", " GET / HTTP/1.1\r\nHost: good.test\r\n\r\n", BadRequestLine},
	{"B7 tabs", "GET\t/\tHTTP/1.1\r\nHost: good.test\r\n\r\n", BadRequestLine},
	{"B7 lower-case version", "GET / http/1.1\r\nHost: good.test\r\n\r\n", BadVersion},
	{"B7 HTTP/1.2", "GET / HTTP/1.2\r\nHost: good.test\r\n\r\n", BadVersion},
	{"B7 HTTP/0.9", "GET / HTTP/0.9\r\nHost: good.test\r\n\r\n", BadVersion},
	{"B7 HTTP/01.1", "GET / HTTP/01.1\r\nHost: good.test\r\n\r\n", BadVersion},
	{"B7 method", "GE(T / HTTP/1.1\r\nHost: good.test\r\n\r\n", BadMethod},
	{"B7 long method", strings.Repeat("G", 33) + " / HTTP/1.1\r\nHost: good.test\r\n\r\n", BadMethod},
	{"B9 h2c", "GET / HTTP/1.1\r\nHost: good.test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n", HTTP2Upgrade},
	{"B9 h2c among others", "GET / HTTP/1.1\r\nHost: good.test\r\nUpgrade: websocket ,H2C\r\n\r\n", HTTP2Upgrade},
	{"B9 HTTP2-Settings", "GET / HTTP/1.1\r\nHost: good.test\r\nHTTP2-Settings: AA\r\n\r\n", HTTP2Upgrade},
	{"B9 prior knowledge", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", BadVersion},
	{"B9 CONNECT", "CONNECT good.test:443 HTTP/1.1\r\nHost: good.test\r\n\r\n", ConnectMethod},
	{"B9 CONNECT with a path", "CONNECT / HTTP/1.1\r\nHost: good.test\r\n\r\n", ConnectMethod},
	{"B10 other expectation", "POST / HTTP/1.1\r\nHost: good.test\r\nExpect: 200-ok\r\n\r\n", BadExpect},
	{"B10 two expectations", "POST / HTTP/1.1\r\nHost: good.test\r\nExpect: 100-continue\r\nExpect: 100-continue\r\n\r\n", BadExpect},
	{"B11 forbidden trailer announced", "POST / HTTP/1.1\r\nHost: good.test\r\nTransfer-Encoding: chunked\r\nTrailer: X, Content-Length\r\n\r\n0\r\n\r\n", BadTrailerField},
	{"asterisk", "GET * HTTP/1.1\r\nHost: good.test\r\n\r\n", BadTarget},
	{"authority form", "GET good.test:443 HTTP/1.1\r\nHost: good.test\r\n\r\n", BadTarget},
	{"other scheme", "GET ftp://good.test/ HTTP/1.1\r\nHost: good.test\r\n\r\n", BadTarget},
	{"no authority", "GET http:///x HTTP/1.1\r\nHost: good.test\r\n\r\n", BadTarget},
	{"fragment", "GET /x#y HTTP/1.1\r\nHost: good.test\r\n\r\n", BadTarget},
	{"long line", "GET /" + strings.Repeat("x", 17<<10) + " HTTP/1.1\r\nHost: good.test\r\n\r\n", LineTooLong},
	{"endless line", "GET /" + strings.Repeat("x", 200<<10), LineTooLong},
	{"many fields", "GET / HTTP/1.1\r\nHost: good.test\r\n" + strings.Repeat("X: y\r\n", 200) + "\r\n", TooManyFields},
	{"large head", "GET / HTTP/1.1\r\nHost: good.test\r\n" + strings.Repeat("X: "+strings.Repeat("y", 8000)+"\r\n", 9) + "\r\n", HeadTooLarge},
	{"TLS", "\x16\x03\x01\x00\x05hello\n", BadLineEnd},
}

func TestRefusedHeads(t *testing.T) {
	for _, tt := range refused {
		t.Run(tt.name, func(t *testing.T) {
			for _, n := range []int{1, 13, 1 << 20} {
				if n == 1 && len(tt.in) > 100<<10 {
					continue
				}
				for _, before := range []string{"", good, good + good} {
					var told []Reject
					got, answer := run(t, before+tt.in+good, n, Config{OnReject: func(r Reject) { told = append(told, r) }})
					if want := len(before) / len(good); len(got) != want {
						t.Fatalf("segments of %d: %d requests were served, want %d", n, len(got), want)
					}
					if len(told) != 1 || told[0].Fault != tt.fault || told[0].InBody {
						t.Errorf("segments of %d: rejected %+v, want %q", n, told, tt.fault)
					}
					if strings.Count(answer, "HTTP/1.1 200") != len(got) || strings.Count(answer, "HTTP/1.1 4") != 1 ||
						!strings.Contains(answer, string(told[0].Reason())) || !strings.HasSuffix(answer, "}\n") || ownError(answer) {
						t.Errorf("segments of %d: answered %q", n, answer)
					}
				}
			}
		})
	}
}

// Faults in bodies: the message is left incomplete and nothing behind it is
// served.
var refusedBodies = []struct {
	name, body string // behind a head with chunked
	read       string
	fault      Fault
}{
	{"B6 bare LF in a size", "5\nhello\r\n0\r\n\r\n", "", BadChunk},
	{"B6 extension", "5;a=b\r\nhello\r\n0\r\n\r\n", "", BadChunk},
	{"B6 extension with LF", "5;\n\r\nhello\r\n0\r\n\r\n", "", BadChunk},
	{"B6 17 digits", "00000000000000005\r\nhello\r\n0\r\n\r\n", "", BadChunk},
	{"B6 overflow", "ffffffffffffffff\r\nhello\r\n0\r\n\r\n", "", BadChunk},
	{"B6 negative size", "-5\r\nhello\r\n0\r\n\r\n", "", BadChunk},
	{"B6 signed size", "+5\r\nhello\r\n0\r\n\r\n", "", BadChunk},
	{"B6 0x size", "0x5\r\nhello\r\n0\r\n\r\n", "", BadChunk},
	{"B6 underscore", "1_0\r\nhello\r\n0\r\n\r\n", "", BadChunk},
	{"B6 space behind size", "5 \r\nhello\r\n0\r\n\r\n", "", BadChunk},
	{"B6 space before size", " 5\r\nhello\r\n0\r\n\r\n", "", BadChunk},
	{"B6 no size", "\r\nhello\r\n0\r\n\r\n", "", BadChunk},
	{"B6 endless size", strings.Repeat("0", 100), "", BadChunk},
	{"B6 chunk too long", "5\r\nhello!\r\n0\r\n\r\n", "hello", BadChunk},
	{"B6 LF behind a chunk", "5\r\nhello\n0\r\n\r\n", "hello", BadChunk},
	{"B6 CR behind a chunk", "5\r\nhello\r0\r\n\r\n", "hello", BadChunk},
	{"B6 second size", "5\r\nhello\r\n0x0\r\n\r\n", "hello", BadChunk},
	{"B11 Host in trailers", "5\r\nhello\r\n0\r\nHost: evil.test\r\n\r\n", "hello", BadTrailerField},
	{"B11 Content-Length in trailers", "5\r\nhello\r\n0\r\nX: y\r\ncontent-length: 5\r\n\r\n", "hello", BadTrailerField},
	{"B11 Transfer-Encoding in trailers", "5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n", "hello", BadTrailerField},
	{"folded trailer", "5\r\nhello\r\n0\r\nX: y\r\n z\r\n\r\n", "hello", FoldedLine},
	{"bare LF in trailers", "5\r\nhello\r\n0\r\nX: y\n\r\n", "hello", BadLineEnd},
	{"NUL in trailers", "5\r\nhello\r\n0\r\nX: \x00\r\n\r\n", "hello", BadFieldValue},
	{"space before a trailer's colon", "5\r\nhello\r\n0\r\nX : y\r\n\r\n", "hello", BadFieldName},
	{"large trailers", "5\r\nhello\r\n0\r\n" + strings.Repeat("X: yyyyyyyyyyyyyyyyyyyyyyyyy\r\n", 150) + "\r\n", "hello", TrailersTooLarge},
}

func TestRefusedBodies(t *testing.T) {
	for _, tt := range refusedBodies {
		t.Run(tt.name, func(t *testing.T) {
			for _, n := range []int{1, 13, 1 << 20} {
				var told []Reject
				in := good + "POST /x HTTP/1.1\r\nHost: good.test\r\nTransfer-Encoding: chunked\r\n\r\n" + tt.body + good
				got, _ := run(t, in, n, Config{OnReject: func(r Reject) { told = append(told, r) }})
				if len(got) != 2 || got[1].Whole || got[1].Body != tt.read {
					t.Fatalf("segments of %d: served %+v", n, got)
				}
				if want := (Reject{Fault: tt.fault, InBody: true, Method: "POST", Target: "/x", Host: "good.test"}); len(told) != 1 || told[0] != want {
					t.Errorf("segments of %d: rejected %+v, want %q", n, told, tt.fault)
				}
			}
		})
	}
}

// What must work, each twice on one connection.
var accepted = []string{
	good,
	"GET /a|b/%2fx/../%zz?q=a;b&c=%00 HTTP/1.1\r\nHost: GOOD.test.:443\r\n\r\n",
	"GET //x/\xc3\xa9?\xff HTTP/1.1\r\nhOsT:good.test\r\nX-Empty:\r\nX-Tab:\ta\t\r\nX-Obs: \xe9\r\n\r\n",
	"GET https://good.test:443/x?y HTTP/1.1\r\nHost: good.test\r\n\r\n",
	"OPTIONS * HTTP/1.1\r\nHost: good.test\r\n\r\n",
	"OPTIONS HTTP://good.test HTTP/1.1\r\nHost: good.test\r\n\r\n",
	"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: [::1]\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: good.test%00.evil\r\n\r\n",
	"POST /p HTTP/1.1\r\nHost: good.test\r\nContent-Length: 5\r\n\r\nhello",
	"POST /p HTTP/1.1\r\nHost: good.test\r\nContent-Length: 000000000000000005\r\n\r\nhello",
	"GET /p HTTP/1.1\r\nHost: good.test\r\nContent-Length: 0\r\n\r\n",
	"POST /p HTTP/1.1\r\nHost: good.test\r\nExpect: 100-Continue\r\nContent-Length: 5\r\n\r\nhello",
	"POST /p HTTP/1.1\r\nHost: good.test\r\nExpect: 100-continue\r\n\r\n",
	"POST /p HTTP/1.1\r\nHost: good.test\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n000000000000000A\r\n0123456789\r\n0000\r\n\r\n",
	"POST /p HTTP/1.1\r\nHost: good.test\r\nTrailer: X-A\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-A: b\r\nX-B: c\r\n\r\n",
	"POST /p HTTP/1.1\r\nHost: good.test\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1\r\nx\r\n", 5000) + "0\r\n\r\n",
	"POST /p HTTP/1.1\r\nHost: good.test\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("0123456789", 10000),
	"POST /p HTTP/1.1\r\nHost: good.test\r\nTransfer-Encoding: chunked\r\n\r\n186a0\r\n" + strings.Repeat("0123456789", 10000) + "\r\n0\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: good.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: good.test\r\nPragma: no-cache\r\nConnection: keep-alive, x\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: good.test\r\n" + strings.Repeat("X: "+strings.Repeat("y", 8000)+"\r\n", 8) + "\r\n",
	"GET / HTTP/1.1\r\nHost: good.test\r\n" + strings.Repeat("X: y\r\n", 199) + "\r\n",
	"POST /p HTTP/1.1\r\nHost: good.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + strings.Repeat("X: "+strings.Repeat("y", 1000)+"\r\n", 4) + "\r\n",
}

func TestAccepted(t *testing.T) {
	for _, in := range accepted {
		for _, n := range []int{1, 13, 4096, 1 << 20} {
			if n == 1 && len(in) > 50000 {
				continue
			}
			got, answer := run(t, in+in, n, Config{})
			want := oracle(in + in)
			if len(want) != 2 {
				t.Fatalf("the oracle refuses %.100q", in)
			}
			if d := cmp.Diff(normal(want), normal(got)); d != "" {
				t.Errorf("%.100q, segments of %d (-want +got):\n%.2000s", in, n, d)
			}
			if ownError(answer) || strings.Contains(answer, "malformed") {
				t.Errorf("%.100q: answered %.2000q", in, answer)
			}
		}
	}
}

func TestTruncatedBodiesAreIncomplete(t *testing.T) {
	for _, in := range []string{
		"POST /p HTTP/1.1\r\nHost: good.test\r\nContent-Length: 6\r\n\r\nhello",
		"POST /p HTTP/1.1\r\nHost: good.test\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello",
		"POST /p HTTP/1.1\r\nHost: good.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
		"POST /p HTTP/1.1\r\nHost: good.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
		"POST /p HTTP/1.1\r\nHost: good.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n",
	} {
		got, _ := run(t, in, 1<<20, Config{})
		if len(got) != 1 || got[0].Whole || got[0].Body != "hello" {
			t.Errorf("%q: %+v", in, got)
		}
	}
}

// FuzzReframe is the package's promise: what net/http serves is what the
// oracle reads, for every input and every split.
func FuzzReframe(f *testing.F) {
	add := func(in string) {
		if len(in) < 2000 {
			f.Add([]byte(in), byte(1))
			f.Add([]byte(good+in+good), byte(20))
		}
	}
	for _, tt := range refused {
		add(tt.in)
	}
	for _, tt := range refusedBodies {
		add("POST /x HTTP/1.1\r\nHost: good.test\r\nTransfer-Encoding: chunked\r\n\r\n" + tt.body)
	}
	for _, in := range accepted {
		add(in)
	}
	f.Fuzz(func(t *testing.T, in []byte, n byte) {
		got, answer := run(t, string(in), int(n)+1, Config{})
		want := oracle(string(in))
		if len(got) > len(want) {
			t.Fatalf("net/http serves %d requests, the oracle %d", len(got), len(want))
		}
		if len(got) < len(want) && (len(got) == 0 || !got[len(got)-1].Last) {
			t.Fatalf("net/http serves %d requests, the oracle %d", len(got), len(want))
		}
		if d := cmp.Diff(normal(want[:len(got)]), normal(got)); d != "" {
			t.Fatalf("net/http and oracle differ (-oracle +net/http):\n%s", d)
		}
		if ownError(answer) {
			t.Fatalf("net/http refused what was handed on: %q", answer)
		}
	})
}
