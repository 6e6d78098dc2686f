package secret

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"iter"
)

// keptMembers are what a client reads of a JSON web token without having its
// key: of header and claims (RFC 7515 §4.1, RFC 7519 §4.1). All others, and
// what is nested in these, are dropped: a claim may hold anything.
var keptMembers = [2][]string{{"alg", "typ", "kid"}, {"iss", "aud", "exp", "iat", "nbf"}}

// maxMember bounds a member that is kept.
const maxMember = 256

// token draws another JSON web token in the compact form (RFC 7515 §7.1): the
// members of keptMembers, padded with spaces, and a random signature, each
// part as long as value's. It reports whether value is one.
func (d *drawing) token(value, scratch []byte) bool {
	head, rest, ok1 := bytes.Cut(value, []byte("."))
	claims, signature, ok2 := bytes.Cut(rest, []byte("."))
	if !ok1 || !ok2 || bytes.IndexByte(signature, '.') >= 0 || len(signature)%4 == 1 {
		return false
	}
	at := 0
	for i, part := range [][]byte{head, claims} {
		n, err := base64.RawURLEncoding.Decode(scratch, part)
		if err != nil || base64.RawURLEncoding.EncodedLen(n) != len(part) || !json.Valid(scratch[:n]) {
			return false
		}
		object, ok := reduced(scratch[:n], keptMembers[i])
		if !ok {
			return false
		}
		d.keep(at, base64.RawURLEncoding.EncodeToString(object)+".")
		at += len(part) + 1
	}
	random := make([]byte, base64.RawURLEncoding.DecodedLen(len(signature)))
	rand.Read(random)
	base64.RawURLEncoding.Encode(d.text[at:], random)
	d.bits += 8 * float64(len(random))
	return true
}

// reduced returns an object with those members of object, which is valid
// JSON, that are in keep and hold nothing but text and numbers. It is padded
// to the same length.
func reduced(object []byte, keep []string) ([]byte, bool) {
	if len(object) < 2 || object[0] != '{' {
		return nil, false
	}
	out := []byte{'{'}
	for name, value := range members(object) {
		if !contained(keep, name) || !harmless(value) {
			continue
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(append(append(out, '"'), name...), '"', ':')
		out = append(out, value...)
	}
	for len(out) < len(object)-1 {
		out = append(out, ' ')
	}
	return append(out, '}'), true
}

func contained(list []string, name []byte) bool {
	for _, s := range list {
		if s == string(name) {
			return true
		}
	}
	return false
}

// harmless reports whether a member's value may be shown: short, and a text,
// a number or a list of these, without another token in it.
func harmless(value []byte) bool {
	return len(value) <= maxMember && bytes.IndexByte(value, '{') < 0 && !bytes.Contains(value, []byte("eyJ"))
}

// members yields the members of an object, which is valid JSON, as they are
// written: the name without its quotes.
func members(object []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		for at := 1; ; {
			quote := bytes.IndexByte(object[at:], '"')
			if quote < 0 {
				return
			}
			at += quote
			end := textEnd(object, at)
			start := end + bytes.IndexByte(object[end:], ':') + 1
			stop := valueEnd(object, start)
			if !yield(object[at+1:end], bytes.TrimSpace(object[start:stop])) {
				return
			}
			at = stop
		}
	}
}

// textEnd returns where the quote is that ends the text beginning at i.
func textEnd(object []byte, i int) int {
	for i++; object[i] != '"'; i++ {
		if object[i] == '\\' {
			i++
		}
	}
	return i
}

// valueEnd returns where the comma or brace is that ends the value at i.
func valueEnd(object []byte, i int) int {
	for depth := 0; ; i++ {
		switch object[i] {
		case '"':
			i = textEnd(object, i)
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i
			}
			depth--
		case ',':
			if depth == 0 {
				return i
			}
		}
	}
}
