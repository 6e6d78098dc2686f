package reframe

import (
	"bytes"
	"strings"
)

// splitField takes a header or trailer line apart. The value is without the
// white space around it.
func splitField(line []byte) (name, value []byte, f Fault) {
	if line[0] == ' ' || line[0] == '\t' {
		return nil, nil, FoldedLine
	}
	colon := bytes.IndexByte(line, ':')
	if colon < 1 || !token(line[:colon]) {
		return nil, nil, BadFieldName
	}
	name, value = line[:colon], line[colon+1:]
	for _, c := range value {
		if c < ' ' && c != '\t' || c == 0x7f {
			return nil, nil, BadFieldValue
		}
	}
	for len(value) > 0 && (value[0] == ' ' || value[0] == '\t') {
		value = value[1:]
	}
	for n := len(value) - 1; n >= 0 && (value[n] == ' ' || value[n] == '\t'); n-- {
		value = value[:n]
	}
	return name, value, ""
}

// forbiddenTrailers would change the framing, routing or reading of the
// message that they end, RFC 9110 §6.5.1.
var forbiddenTrailers = map[string]bool{
	"host": true, "content-length": true, "transfer-encoding": true, "trailer": true, "te": true,
	"connection": true, "keep-alive": true, "proxy-connection": true, "upgrade": true, "http2-settings": true,
	"expect": true, "max-forwards": true, "content-encoding": true, "content-type": true, "content-range": true,
}

// trailerLine checks one line of a trailer section.
func trailerLine(line []byte) Fault {
	name, _, f := splitField(line)
	if f == "" && forbiddenTrailers[strings.ToLower(string(name))] {
		return BadTrailerField
	}
	return f
}

// trailerNames checks the value of a Trailer field: net/http refuses some
// names, and none of those that may not come need be announced.
func trailerNames(value []byte) Fault {
	for item := range bytes.SplitSeq(value, []byte{','}) {
		if forbiddenTrailers[strings.ToLower(string(bytes.Trim(item, " \t")))] {
			return BadTrailerField
		}
	}
	return ""
}

// tchar is RFC 9110 §5.6.2.
var tchar = func() (t [256]bool) {
	for _, c := range "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz" {
		t[c] = true
	}
	return t
}()

func token(b []byte) bool {
	for _, c := range b {
		if !tchar[c] {
			return false
		}
	}
	return true
}

// foldEqual compares ASCII without case; lower is in lower case.
func foldEqual(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

func prefixFold(s, lower string) bool {
	return len(s) >= len(lower) && strings.EqualFold(s[:len(lower)], lower)
}

// methodName returns b as a string, without allocating for common methods.
func methodName(b []byte) string {
	switch string(b) {
	case "GET":
		return "GET"
	case "POST":
		return "POST"
	case "PUT":
		return "PUT"
	case "HEAD":
		return "HEAD"
	case "PATCH":
		return "PATCH"
	case "DELETE":
		return "DELETE"
	case "OPTIONS":
		return "OPTIONS"
	}
	return string(b)
}
