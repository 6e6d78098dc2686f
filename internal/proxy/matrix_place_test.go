package proxy

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"

	"github.com/cutoutdev/cutout/internal/secret"
)

// A wire is a request as the guest makes it or as an upstream records it.
type wire struct {
	method, target, host string
	header               http.Header
	body                 string
	hasBody              bool
	trailer              http.Header
	said                 string // in a message of its WebSocket
}

// A place is where in a request a text stands.
type place struct {
	name      string
	position  string // in the words of the events
	syntax    string // that the text is part of
	socket    bool   // the request is a handshake of a WebSocket
	spellings []spelling
	put       func(m *wire, text string)
}

// A spelling is a way to write a placeholder that some syntax may read.
type spelling struct {
	name  string
	spell func(string) string
}

func every(format string) func(string) string {
	return func(s string) string {
		var b strings.Builder
		for _, c := range []byte(s) {
			fmt.Fprintf(&b, format, c)
		}
		return b.String()
	}
}

func some(pairs ...string) func(string) string { return strings.NewReplacer(pairs...).Replace }

// matrixUser makes Base64 hold the two letters in which alphabets differ.
const matrixUser = "me??>>:"

var (
	asItIs = spelling{"raw", func(s string) string { return s }}
	folded = spelling{"folded", strings.ToLower}

	percentUpper  = spelling{"percent upper", every("%%%02X")}
	percentLower  = spelling{"percent lower", every("%%%02x")}
	percentPartly = spelling{"percent partial", some("$", "%24", "_", "%5f")}
	percentTwice  = spelling{"percent twice", every("%%25%02X")}

	jsonEvery  = spelling{"json all", every(`\u%04x`)}
	jsonPartly = spelling{"json partial", some("$", `\u0024`, "_", `\u005F`)}

	entityEvery = spelling{"entity all", every("&#x%X;")}
	entityNamed = spelling{"entity named", some("$", "&dollar;", "_", "&#95;")}

	base64Std     = spelling{"base64", func(s string) string { return "Basic " + b64(matrixUser+s) }}
	base64URL     = spelling{"base64 url", func(s string) string { return "bASIC \t" + some("+", "-", "/", "_", "=", "")(b64(matrixUser+s)) }}
	base64Percent = spelling{"percent in base64", func(s string) string { return "Basic " + b64(matrixUser+percentUpper.spell(s)) }}
)

// filler is what makes compressed text unlike itself.
var filler = func() string {
	rng := rand.New(rand.NewPCG(1, 2))
	var b strings.Builder
	for range 400 {
		b.WriteByte("aaabbcdefghijklm"[rng.IntN(16)])
	}
	return b.String()
}()

// code puts the body into a content coding.
func (m *wire) code(coding string) {
	key := coding + " " + m.body
	text, ok := codedOnce.Load(key)
	if !ok {
		text, _ = codedOnce.LoadOrStore(key, coded(m.body, coding))
	}
	m.body = text.(string)
	m.header["Content-Encoding"] = []string{coding}
}

// codedOnce holds what was coded: it takes longer than the request.
var codedOnce sync.Map

func inHeader(name, before string) func(*wire, string) {
	return func(m *wire, text string) { m.header[name] = []string{before + text} }
}

func inTarget(before, after string) func(*wire, string) {
	return func(m *wire, text string) { m.target = before + text + after }
}

func inBody(contentType, before, after string) func(*wire, string) {
	return func(m *wire, text string) {
		m.method = "POST"
		m.header["Content-Type"] = []string{contentType}
		m.body, m.hasBody = before+text+after, true
	}
}

func inTrailer(m *wire, text string) {
	inBody("text/plain", "body", "")(m, "")
	m.trailer = http.Header{"X-Sum": {text}}
}

func inMessage(before, after string) func(*wire, string) {
	return func(m *wire, text string) { m.said = before + text + after }
}

func part(head, before, after string) func(*wire, string) {
	return inBody("multipart/form-data; boundary=limit",
		"--limit\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n"+filler+"\r\n--limit\r\nContent-Disposition: form-data; name=\"k\"\r\n"+head+"\r\n"+before,
		after+"\r\n--limit--\r\n")
}

var (
	inURL  = []spelling{asItIs, percentUpper, percentLower, percentPartly, percentTwice, folded}
	inText = []spelling{asItIs, percentUpper, jsonEvery, folded}
	inJSON = []spelling{asItIs, jsonEvery, jsonPartly, percentUpper}
	inForm = []spelling{asItIs, percentUpper, percentLower, percentPartly, percentTwice}
	inXML  = []spelling{asItIs, entityEvery, entityNamed, jsonPartly}
	inName = []spelling{asItIs, folded}
	inAuth = []spelling{base64Std, base64URL, base64Percent}
)

var places = []place{
	{name: "header", position: "header", syntax: "field", spellings: inText, put: inHeader("Authorization", "Bearer ")},
	{name: "named header", position: "header", syntax: "field", spellings: inText, put: inHeader("X-Note", "")},
	{name: "basic", position: "basic", syntax: "credentials", spellings: inAuth, put: inHeader("Authorization", "")},
	{name: "query", position: "query", syntax: "url", spellings: inURL, put: inTarget("/a%2fb?x=%3d&k=", "&y")},
	{name: "path", position: "path", syntax: "url", spellings: inURL, put: inTarget("/a%2fb/", "/c?d")},

	{name: "handshake header", position: "header", syntax: "field", socket: true, spellings: inText, put: inHeader("Authorization", "Bearer ")},
	{name: "handshake basic", position: "basic", syntax: "credentials", socket: true, spellings: inAuth, put: inHeader("Authorization", "")},
	{name: "handshake query", position: "query", syntax: "url", socket: true, spellings: inURL, put: inTarget("/ws?k=", "")},
	{name: "handshake path", position: "path", syntax: "url", socket: true, spellings: inURL, put: inTarget("/", "/ws")},

	{name: "text", position: "body", syntax: "text", spellings: inText, put: inBody("text/plain", filler+" the key is ", ".")},
	{name: "json", position: "body", syntax: "json", spellings: inJSON, put: inBody("application/json", `{"`+filler+`":"\n","k":"`, `"}`)},
	{name: "form", position: "body", syntax: "form", spellings: inForm, put: inBody("application/x-www-form-urlencoded", filler+"=%26&k=", "&c=+")},
	{name: "xml", position: "body", syntax: "xml", spellings: inXML, put: inBody("application/xml", filler+`<a b="&amp;">`, "</a>")},
	{name: "multipart text", position: "body", syntax: "text", spellings: inText, put: part("", "", "")},
	{name: "multipart json", position: "body", syntax: "json", spellings: inJSON, put: part("Content-Type: application/json\r\n", `["`, `"]`)},
	{name: "yaml", position: "body", syntax: "yaml", spellings: []spelling{asItIs}, put: inBody("application/yaml", filler+": ", "\n")},
	{name: "bytes", position: "body", syntax: "bytes", spellings: []spelling{asItIs, percentUpper}, put: inBody("application/octet-stream", filler+"\x00\x0c", "\xff")},
	{name: "bytes of equal length", position: "body", syntax: "equal bytes", spellings: []spelling{asItIs}, put: inBody("application/octet-stream", filler+"\x00\x28", "\xff")},

	{name: "text message", position: "websocket", syntax: "text", socket: true, spellings: inText, put: inMessage("the key is ", ".")},
	{name: "json message", position: "websocket", syntax: "json", socket: true, spellings: inJSON, put: inMessage(` {"k":"`, `"}`)},
	{name: "binary message", position: "websocket", syntax: "binary", socket: true, spellings: inText, put: inMessage("\x00", "\xff")},

	{name: "trailer", position: "trailer", syntax: "field", spellings: append(inText, base64Std), put: inTrailer},
	{name: "header name", position: "header name", syntax: "name", spellings: inName, put: func(m *wire, text string) { m.header[text] = []string{"x"} }},
	{name: "method", position: "method", syntax: "name", spellings: inName, put: func(m *wire, text string) { m.method = text }},
	{name: "authority", position: "authority", syntax: "name", spellings: inName, put: func(m *wire, text string) { m.host = text }},
}

// surfaces are those of a secret that may go to the place, or to every other
// place but not to this one.
func (p place) surfaces(on bool) secret.Surfaces {
	s := secret.Surfaces{Header: true, Headers: []string{"X-Note"}, Basic: true, Query: true, Path: true, Body: []secret.BodyPart{{}}, WebSocket: true}
	if on {
		return s
	}
	switch p.position {
	case "header":
		if p.name == "named header" {
			s.Headers = nil
		} else {
			s.Header = false
		}
	case "basic":
		s.Basic = false
	case "query":
		s.Query = false
	case "path":
		s.Path = false
	case "body":
		s.Body = nil
	case "websocket":
		s.WebSocket = false
	default:
		s = secret.Surfaces{}
	}
	return s
}

// coded reports whether the text is in what a content coding covers.
func (p place) coded() bool { return p.position == "body" }

// opcode is that of the message in which the text is said.
func (p place) opcode() byte {
	if p.syntax == "binary" {
		return 2
	}
	return 1
}

func (p place) placeholder() string {
	if p.syntax == "equal bytes" {
		return (placeholder + strings.Repeat("x", len(matrixValue)))[:len(matrixValue)]
	}
	return placeholder
}
