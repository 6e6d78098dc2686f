package reframe

import (
	"net/http"
	"net/textproto"
	"regexp"
	"strconv"
	"strings"
)

// An oracle is the slow, obvious reading of the same grammar: one regular
// expression for a whole head, one for a chunk, no state. What is not ASCII is
// let pass where it may stand, whether it is UTF-8 or not.

const (
	tok   = "[!#$%&'*+.^_`|~0-9A-Za-z-]"
	vchar = `[\x{21}-\x{7e}\x{80}-\x{10ffff}]`
)

var (
	headRE = regexp.MustCompile(`^(` + tok + `{1,32}) ([\x{21}-\x{22}\x{24}-\x{7e}\x{80}-\x{10ffff}]+) HTTP/1\.([01])\r\n` +
		`((?:` + tok + `+:(?:[\t ]|` + vchar + `)*\r\n)*)\r\n`)
	chunkRE   = regexp.MustCompile(`^0*([0-9A-Fa-f]{1,16})\r\n`)
	trailerRE = regexp.MustCompile(`^((?:` + tok + `+:(?:[\t ]|` + vchar + `)*\r\n)*)\r\n`)
	targetRE  = regexp.MustCompile(`^(?:/.*|https?://[^/?]+.*)$`)
	hostRE    = regexp.MustCompile(`^[!$%&'()*+,\-.:;=\[\]_~0-9A-Za-z]+$`)
	lengthRE  = regexp.MustCompile(`^[0-9]{1,18}$`)
	noTrailer = regexp.MustCompile(`^(host|content-length|transfer-encoding|trailer|te|connection|keep-alive|proxy-connection|upgrade|http2-settings|expect|max-forwards|content-encoding|content-type|content-range)$`)
	h2cRE     = regexp.MustCompile(`(^|,)[\t ]*(h2c|h2|http)(/[^,]*)?[\t ]*(,|$)`)
)

// A served request, as oracle or server saw it.
type served struct {
	Method, Target, Host string
	Header               http.Header
	Body                 string
	Trailer              http.Header
	Whole                bool // the body came to its end
	Last                 bool // the connection ends behind it
}

// oracle returns the requests in in that may be served.
func oracle(in string) []served {
	var out []served
	rest := in
	for {
		m := headRE.FindStringSubmatch(rest)
		if m == nil {
			return out
		}
		q, f, ok := head(m)
		if !ok {
			return out
		}
		rest = rest[len(m[0]):]
		rest, ok = body(&q, f, rest)
		out = append(out, q)
		if !ok {
			return out
		}
	}
}

func fields(lines string) (out [][2]string) {
	for line := range strings.SplitSeq(strings.TrimSuffix(lines, "\r\n"), "\r\n") {
		if name, value, ok := strings.Cut(line, ":"); ok {
			out = append(out, [2]string{name, strings.Trim(value, " \t")})
		}
	}
	return out
}

func head(m []string) (q served, f [][2]string, ok bool) {
	f = fields(m[4])
	q = served{Method: m[1], Target: m[2], Header: http.Header{}}
	count := map[string]int{}
	for _, kv := range f {
		key, value := lower(kv[0]), kv[1]
		count[key]++
		q.Header[textproto.CanonicalMIMEHeaderKey(kv[0])] = append(q.Header[textproto.CanonicalMIMEHeaderKey(kv[0])], value)
		switch key {
		case "host":
			q.Host = value
			ok = hostRE.MatchString(value)
		case "content-length":
			ok = lengthRE.MatchString(value)
		case "transfer-encoding":
			ok = lower(value) == "chunked" && m[3] == "1"
		case "expect":
			ok = lower(value) == "100-continue"
		case "upgrade":
			ok = !h2cRE.MatchString(lower(value))
		case "trailer":
			ok = true
			for item := range strings.SplitSeq(value, ",") {
				ok = ok && !noTrailer.MatchString(lower(strings.Trim(item, " \t")))
			}
		case "http2-settings":
			ok = false
		default:
			ok = true
		}
		if !ok {
			return q, f, false
		}
	}
	long := len(m[1])+len(m[2])+9 > maxLine
	for line := range strings.SplitSeq(m[4], "\r\n") {
		long = long || len(line) >= maxLine
	}
	ok = count["host"] < 2 && (count["host"] == 1 || m[3] == "0") && count["content-length"]+count["transfer-encoding"] < 2 &&
		count["expect"] < 2 && m[1] != "CONNECT" && len(f) <= maxFields && len(m[0]) <= maxHead && !long &&
		(targetRE.MatchString(lower(m[2])) || m[2] == "*" && m[1] == "OPTIONS")
	return q, f, ok
}

func body(q *served, f [][2]string, rest string) (string, bool) {
	q.Whole = true
	for _, kv := range f {
		switch lower(kv[0]) {
		case "content-length":
			n, _ := strconv.Atoi(kv[1])
			q.Whole = n <= len(rest)
			n = min(n, len(rest))
			q.Body = rest[:n]
			return rest[n:], q.Whole
		case "transfer-encoding":
			return chunks(q, rest)
		}
	}
	return rest, true
}

func chunks(q *served, rest string) (string, bool) {
	q.Whole = false
	for {
		m := chunkRE.FindStringSubmatch(rest)
		if m == nil || len(m[0]) > 18 {
			return "", false
		}
		rest = rest[len(m[0]):]
		n, err := strconv.ParseUint(m[1], 16, 63)
		if err != nil {
			return "", false
		}
		if n == 0 {
			break
		}
		n = min(n, uint64(len(rest)))
		q.Body += rest[:n]
		rest = rest[n:]
		if !strings.HasPrefix(rest, "\r\n") {
			return "", false
		}
		rest = rest[2:]
	}
	m := trailerRE.FindStringSubmatch(rest)
	if m == nil || len(m[0]) > maxTrailer {
		return "", false
	}
	trailer := http.Header{}
	for _, kv := range fields(m[1]) {
		if noTrailer.MatchString(lower(kv[0])) {
			return "", false
		}
		key := textproto.CanonicalMIMEHeaderKey(kv[0])
		trailer[key] = append(trailer[key], kv[1])
	}
	q.Whole, q.Trailer = true, trailer
	return rest[len(m[0]):], true
}

// lower is ASCII only: Unicode knows other letters that fold to k and s.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, s)
}
