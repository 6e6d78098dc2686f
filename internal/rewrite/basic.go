package rewrite

import (
	"encoding/base64"
	"strings"
)

// credentials are those of a Basic field value, RFC 7617: value[from:to] is
// their Base64 text, plain what it decodes to.
type credentials struct {
	from, to int
	plain    string
	spans    []span // placeholders in plain, at least one
}

var urlToStd = strings.NewReplacer("-", "+", "_", "/")

// basic decodes a Basic field value: the scheme in any case, any space
// around the credentials, either alphabet, padded or not. It is ok only if
// the credentials hold a placeholder.
func (f *Finder) basic(value string) (c credentials, ok bool) {
	const scheme, space = "basic", " \t"
	start := len(value) - len(strings.TrimLeft(value, space))
	if len(value)-start <= len(scheme) || !strings.EqualFold(value[start:start+len(scheme)], scheme) {
		return c, false
	}
	rest := value[start+len(scheme):]
	text := strings.Trim(rest, space)
	if strings.IndexByte(space, rest[0]) < 0 || text == "" {
		return c, false
	}
	c.from = len(value) - len(strings.TrimLeft(rest, space))
	c.to = c.from + len(text)
	text = urlToStd.Replace(strings.TrimRight(text, "="))
	plain, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil {
		return c, false
	}
	c.plain = string(plain)
	c.spans = f.find(c.plain)
	return c, len(c.spans) > 0
}
