package config

import (
	"fmt"
	"mime"
	"net/textproto"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/cutoutdev/cutout/internal/secret"
)

// surfaceWords are the surfaces that --surface names.
var surfaceWords = []string{"header", "basic", "query", "path", "body", "websocket"}

// surfaceHint lists them.
const surfaceHint = "surfaces are header, header:X-NAME, header:*, basic, query, path, " +
	"body, body:TYPE/SUBTYPE, body:/JSON/POINTER, body:FIELD and websocket, separated by commas"

// ParseSurfaces reads a --surface NAME=LIST.
func ParseSurfaces(s string) (name string, list secret.Surfaces, err error) {
	name, text, ok := strings.Cut(s, "=")
	if !ok || !validName(name) || text == "" {
		return "", list, hinted("invalid --surface", "write --surface NAME=LIST; "+surfaceHint)
	}
	for item := range strings.SplitSeq(text, ",") {
		if err := addSurface(&list, item); err != nil {
			return "", list, prefixed("--surface "+shown(name), err)
		}
	}
	return name, list, nil
}

func addSurface(list *secret.Surfaces, item string) error {
	word, detail, narrowed := strings.Cut(item, ":")
	if narrowed && word != "header" && word != "body" {
		if !slices.Contains(surfaceWords, word) {
			return unknownSurface(word)
		}
		return hinted("the surface "+word+" cannot be narrowed", "write "+word+"; only header: and body: take a name")
	}
	switch word {
	case "header":
		if narrowed {
			return addHeader(list, detail)
		}
		list.Header = true
	case "basic":
		list.Basic = true
	case "query":
		list.Query = true
	case "path":
		list.Path = true
	case "body":
		part, err := parseBodyPart(detail, narrowed)
		if err != nil {
			return err
		}
		if !slices.Contains(list.Body, part) {
			list.Body = append(list.Body, part)
		}
	case "websocket":
		list.WebSocket = true
	default:
		return unknownSurface(word)
	}
	return nil
}

func unknownSurface(word string) error {
	return hinted("unknown surface", didYouMean(word, surfaceWords)+surfaceHint)
}

// neverHeaders are written by the boundary itself, say where a request goes,
// or are for another than the upstream (RFC 9110 §7.6.1, §11.7).
var neverHeaders = []string{
	"Host", "Connection", "Content-Length", "Content-Encoding", "Expect", "Keep-Alive", "Proxy-Authorization",
	"Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

func addHeader(list *secret.Surfaces, name string) error {
	switch {
	case name == "*":
	case !httpguts.ValidHeaderFieldName(name):
		return hinted("header: is not followed by the name of a header", "write header:X-Name, or header:* for all")
	default:
		name = textproto.CanonicalMIMEHeaderKey(name)
		if slices.Contains(neverHeaders, name) {
			return hinted("a value can never go into "+name, "name the header in which the service expects the credential")
		}
	}
	if !slices.Contains(list.Headers, name) {
		list.Headers = append(list.Headers, name)
	}
	return nil
}

// parseBodyPart reads what follows body: a JSON pointer begins with a slash,
// a media type has one, the name of a form field has none.
func parseBodyPart(s string, narrowed bool) (secret.BodyPart, error) {
	switch {
	case !narrowed:
		return secret.BodyPart{}, nil
	case s == "" || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return secret.BodyPart{}, hinted("body: is not followed by what it is narrowed to",
			"write body:application/json, body:/a/json/pointer or body:FIELD, or body for all")
	case s[0] == '/':
		if !validPointer(s) {
			return secret.BodyPart{}, hinted("body: is followed by an invalid JSON pointer", "~ is written ~0 and / in a name ~1 (RFC 6901)")
		}
		return secret.BodyPart{Pointer: s}, nil
	case strings.Contains(s, "/"):
		t, params, err := mime.ParseMediaType(s)
		if err != nil || len(params) > 0 || strings.Contains(t, "*") {
			return secret.BodyPart{}, hinted("body: is followed by an invalid media type", "write for example body:application/json, without parameters")
		}
		return secret.BodyPart{Type: t}, nil
	}
	return secret.BodyPart{Field: s}, nil
}

// validPointer: RFC 6901 §3.
func validPointer(s string) bool {
	for i := range len(s) {
		if s[i] == '~' && (i+1 == len(s) || s[i+1] != '0' && s[i+1] != '1') {
			return false
		}
	}
	return true
}

// mergeSurfaces adds b to a.
func mergeSurfaces(a, b secret.Surfaces) secret.Surfaces {
	out := secret.Surfaces{
		Header: a.Header || b.Header, Basic: a.Basic || b.Basic, Query: a.Query || b.Query,
		Path: a.Path || b.Path, WebSocket: a.WebSocket || b.WebSocket,
		Headers: slices.Clone(a.Headers), Body: slices.Clone(a.Body),
	}
	for _, h := range b.Headers {
		if !slices.Contains(out.Headers, h) {
			out.Headers = append(out.Headers, h)
		}
	}
	for _, p := range b.Body {
		if !slices.Contains(out.Body, p) {
			out.Body = append(out.Body, p)
		}
	}
	return out
}

// prefixed puts where before the text of err and keeps its hint.
func prefixed(where string, err error) error {
	return hinted(fmt.Sprintf("%s: %v", where, err), Hint(err))
}
