package reframe

import (
	"bytes"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/cutoutdev/cutout/internal/hostname"
)

// A parser reads the head of one request line by line. Everything but Index
// and AuthorityOK of its Head is set when the empty line has come.
type parser struct {
	head   Head
	fields int
	hosts  int
	length bool // a Content-Length was seen
	coding bool // a Transfer-Encoding was seen

	memo memo
}

// A memo saves parsing the Host of every request on a connection again.
type memo struct {
	host      string
	authority hostname.Authority
	ok        bool
}

func (p *parser) reset() { *p = parser{memo: p.memo} }

// requestLine reads "METHOD TARGET HTTP/1.x", RFC 9112 §3, without its CR LF.
func (p *parser) requestLine(line []byte) Fault {
	method, rest, ok := bytes.Cut(line, space)
	target, version, ok2 := bytes.Cut(rest, space)
	switch {
	case len(line) == 0:
		return EmptyLine
	case !ok || !ok2 || len(method) == 0 || len(target) == 0 || bytes.IndexByte(version, ' ') >= 0:
		return BadRequestLine
	case len(method) > maxMethod || !token(method):
		return BadMethod
	}
	switch string(version) {
	case "HTTP/1.1":
		p.head.Minor = 1
	case "HTTP/1.0":
		p.head.Minor = 0
	default:
		return BadVersion
	}
	p.head.Method, p.head.Target = methodName(method), string(target)
	if p.head.Method == "CONNECT" {
		return ConnectMethod
	}
	return p.target()
}

var space = []byte{' '}

// target takes the request target apart, RFC 9112 §3.2. Bytes over 0x7f are
// let pass: clients send paths in UTF-8 as they are typed, and they cannot
// change any framing.
func (p *parser) target() Fault {
	t := p.head.Target
	switch {
	case !printable(t):
		return BadTarget
	case origin(p.head.Method, t):
	case prefixFold(t, "http://"), prefixFold(t, "https://"):
		p.head.Absolute = true
		start := strings.Index(t, "//") + 2
		end := strings.IndexAny(t[start:], "/?")
		if end < 0 {
			end = len(t) - start
		}
		if end == 0 {
			return BadTarget
		}
		p.head.origin = start + end
	default:
		return BadTarget
	}
	return ""
}

// WellFormed reports whether method and target can stand in a request line of
// HTTP/1, the target without an authority: what HTTP/2 says of a request must
// not become another one behind a server that speaks HTTP/1.
func WellFormed(method, target string) bool {
	return method != "" && len(method) <= maxMethod && token([]byte(method)) && printable(target) && origin(method, target)
}

func printable(target string) bool {
	for i := 0; i < len(target); i++ {
		if target[i] <= ' ' || target[i] == 0x7f || target[i] == '#' {
			return false
		}
	}
	return true
}

// origin reports whether target is of origin-form or asterisk-form.
func origin(method, target string) bool {
	return strings.HasPrefix(target, "/") || target == "*" && method == "OPTIONS"
}

// field reads one header line, RFC 9112 §5, without its CR LF.
func (p *parser) field(line []byte) Fault {
	if p.fields++; p.fields > maxFields {
		return TooManyFields
	}
	name, value, f := splitField(line)
	if f != "" {
		return f
	}
	switch len(name) {
	case len("host"):
		if foldEqual(name, "host") {
			return p.host(value)
		}
	case len("expect"):
		if foldEqual(name, "expect") {
			if p.head.Expect || !foldEqual(value, "100-continue") {
				return BadExpect
			}
			p.head.Expect = true
		}
	case len("upgrade"): // and trailer
		if foldEqual(name, "upgrade") {
			return p.upgrade(value)
		}
		if foldEqual(name, "trailer") {
			return trailerNames(value)
		}
	case len("content-length"): // and http2-settings
		if foldEqual(name, "content-length") {
			return p.contentLength(value)
		}
		if foldEqual(name, "http2-settings") {
			return HTTP2Upgrade
		}
	case len("transfer-encoding"):
		if foldEqual(name, "transfer-encoding") {
			if p.coding || p.head.Minor == 0 || !foldEqual(value, "chunked") {
				return BadCoding
			}
			p.coding = true
		}
	}
	return ""
}

func (p *parser) host(value []byte) Fault {
	switch p.hosts++; {
	case p.hosts > 1:
		return TwoHosts
	case len(value) == 0:
		return NoHost
	}
	if string(value) != p.memo.host {
		p.memo.host = string(value)
		var err error
		p.memo.authority, err = hostname.ParseAuthority(p.memo.host)
		p.memo.ok = err == nil
	}
	if !httpguts.ValidHostHeader(p.memo.host) {
		return BadHost
	}
	p.head.Host, p.head.Authority = p.memo.host, p.memo.authority
	return ""
}

func (p *parser) upgrade(value []byte) Fault {
	for item := range bytes.SplitSeq(value, []byte{','}) {
		name, _, _ := bytes.Cut(bytes.Trim(item, " \t"), []byte{'/'})
		if foldEqual(name, "h2c") || foldEqual(name, "h2") || foldEqual(name, "http") {
			return HTTP2Upgrade
		}
	}
	if p.head.Upgrade != "" {
		p.head.Upgrade += ", "
	}
	p.head.Upgrade += string(value)
	return ""
}

func (p *parser) contentLength(value []byte) Fault {
	if p.length {
		return TwoLengths
	}
	p.length = true
	if len(value) == 0 || len(value) > 18 { // fits in an int64
		return BadLength
	}
	for _, c := range value {
		if c < '0' || c > '9' {
			return BadLength
		}
		p.head.Length = p.head.Length*10 + int64(c-'0')
	}
	return ""
}

// end checks what only the whole head can tell.
func (p *parser) end(scheme string) Fault {
	switch {
	case p.hosts == 0 && p.head.Minor > 0:
		return NoHost
	case p.coding && p.length:
		return TwoFramings
	case p.coding:
		p.head.Length = -1
	}
	p.head.AuthorityOK = p.hosts == 1 && p.memo.ok && (!p.head.Absolute || p.agrees(scheme))
	return ""
}

// agrees reports whether the absolute-form target names the host that the
// Host field names, over the connection's scheme.
func (p *parser) agrees(scheme string) bool {
	t := p.head.Target[:p.head.origin]
	own, text, _ := strings.Cut(t, "://")
	a, err := hostname.ParseAuthority(text)
	if err != nil || !strings.EqualFold(own, scheme) {
		return false
	}
	return a.Host == p.head.Authority.Host && port(a, scheme) == port(p.head.Authority, scheme)
}

func port(a hostname.Authority, scheme string) uint16 {
	switch {
	case a.Port != 0:
		return a.Port
	case scheme == "http":
		return 80
	}
	return 443
}
