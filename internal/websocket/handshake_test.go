package websocket

import (
	"net/http"
	"strings"
	"testing"
)

// asked is the handshake of RFC 6455 §1.3.
func asked() *http.Request {
	return &http.Request{Method: "GET", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{
		"Upgrade": {"websocket"}, "Connection": {"keep-alive, Upgrade"}, "Sec-Websocket-Version": {"13"},
		"Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}, "Sec-Websocket-Protocol": {"chat, superchat", "v2"},
	}}
}

func answered() http.Header {
	return http.Header{"Upgrade": {"WebSocket"}, "Connection": {"upgrade"}, "Sec-Websocket-Accept": {"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="}}
}

func TestHandshake(t *testing.T) {
	hs, err := Request(asked())
	if err != nil {
		t.Fatal(err)
	}
	for _, protocol := range []string{"", "chat", "superchat", "v2"} {
		h := answered()
		if protocol != "" {
			h.Set(FieldProtocol, protocol)
		}
		if err := hs.Response(h); err != nil {
			t.Errorf("protocol %q: %v", protocol, err)
		}
	}
}

func TestRequestRefuses(t *testing.T) {
	set := func(name string, values ...string) func(*http.Request) {
		return func(r *http.Request) { r.Header[name] = values }
	}
	tests := map[string]func(*http.Request){
		"POST":            func(r *http.Request) { r.Method = "POST" },
		"HTTP/2":          func(r *http.Request) { r.ProtoMajor = 2 },
		"HTTP/1.0":        func(r *http.Request) { r.ProtoMinor = 0 },
		"body":            func(r *http.Request) { r.ContentLength = 1 },
		"chunked body":    func(r *http.Request) { r.ContentLength = -1 },
		"other protocol":  set("Upgrade", "x"),
		"two protocols":   set("Upgrade", "websocket, x"),
		"two fields":      set("Upgrade", "websocket", "websocket"),
		"no Connection":   set("Connection"),
		"keep-alive only": set("Connection", "keep-alive"),
		"no version":      set("Sec-Websocket-Version"),
		"version 8":       set("Sec-Websocket-Version", "8"),
		"two versions":    set("Sec-Websocket-Version", "13", "8"),
		"no key":          set("Sec-Websocket-Key"),
		"two keys":        set("Sec-Websocket-Key", "dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ=="),
		"short key":       set("Sec-Websocket-Key", "dGhlIHNhbXBsZQ=="),
		"no Base64":       set("Sec-Websocket-Key", "dGhlIHNhbXBsZSBub25jZ!=="),
	}
	for name, change := range tests {
		r := asked()
		change(r)
		if _, err := Request(r); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestResponseRefuses(t *testing.T) {
	tests := map[string][]string{
		"Upgrade: ":                    nil,
		"Upgrade: x":                   nil,
		"Upgrade: websocket,websocket": {"websocket", "websocket"},
		"Connection: close":            nil,
		"Sec-Websocket-Accept: ":       nil,
		"Sec-Websocket-Accept: S3pPLMBiTxaQ9kYGzzhZRbK": nil,
		"Sec-Websocket-Extensions: permessage-deflate":  nil,
		"Sec-Websocket-Protocol: other":                 nil,
		"Sec-Websocket-Protocol: Chat":                  nil,
		"Sec-Websocket-Protocol: chat, superchat":       nil,
		"Sec-Websocket-Protocol: two":                   {"chat", "chat"},
	}
	for line, values := range tests {
		hs, err := Request(asked())
		if err != nil {
			t.Fatal(err)
		}
		h := answered()
		name, value, _ := strings.Cut(line, ": ")
		if h[name] = values; values == nil {
			h[name] = []string{value}
		}
		if hs.Response(h) == nil {
			t.Errorf("%s: accepted", line)
		}
	}
}
