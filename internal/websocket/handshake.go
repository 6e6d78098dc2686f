package websocket

import (
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"net/http"
	"net/textproto"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// A Handshake is what a client has asked for, RFC 6455 §4.1.
type Handshake struct {
	accept    string
	protocols []string
}

// The header fields of a handshake, as net/http spells them.
const (
	FieldKey        = "Sec-Websocket-Key"
	FieldAccept     = "Sec-Websocket-Accept"
	FieldVersion    = "Sec-Websocket-Version"
	FieldProtocol   = "Sec-Websocket-Protocol"
	FieldExtensions = "Sec-Websocket-Extensions"
)

// Request checks that r is a correct handshake.
func Request(r *http.Request) (*Handshake, error) {
	h := r.Header
	key, ok := only(h[FieldKey])
	raw, err := base64.StdEncoding.DecodeString(key)
	version, _ := only(h[FieldVersion])
	upgrade, _ := only(h["Upgrade"])
	switch {
	case r.Method != http.MethodGet:
		return nil, errors.New("the method is not GET")
	case r.ProtoMajor != 1 || r.ProtoMinor != 1:
		return nil, errors.New("it is not HTTP/1.1")
	case r.ContentLength != 0:
		return nil, errors.New("it has a body")
	case !strings.EqualFold(upgrade, "websocket"):
		return nil, errors.New("the protocol is not websocket")
	case !httpguts.HeaderValuesContainsToken(h["Connection"], "upgrade"):
		return nil, errors.New("its Connection does not name Upgrade")
	case version != "13":
		return nil, errors.New("the version of WebSocket is not 13")
	case !ok || err != nil || len(raw) != 16:
		return nil, errors.New("Sec-WebSocket-Key is not 16 bytes in Base64")
	}
	hs := &Handshake{accept: accept(key)}
	for _, v := range h[FieldProtocol] {
		for p := range strings.SplitSeq(v, ",") {
			hs.protocols = append(hs.protocols, textproto.TrimString(p))
		}
	}
	return hs, nil
}

// only returns the value of a field that is there once.
func only(values []string) (string, bool) {
	if len(values) != 1 {
		return "", false
	}
	return textproto.TrimString(values[0]), true
}

// accept is the answer to key, RFC 6455 §4.2.2.
func accept(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// Response checks that the header of a 101 response opens the WebSocket that
// was asked for, without extension.
func (hs *Handshake) Response(h http.Header) error {
	upgrade, _ := only(h["Upgrade"])
	got, _ := only(h[FieldAccept])
	switch {
	case !strings.EqualFold(upgrade, "websocket"):
		return errors.New("its Upgrade is not websocket")
	case !httpguts.HeaderValuesContainsToken(h["Connection"], "upgrade"):
		return errors.New("its Connection does not name Upgrade")
	case got != hs.accept:
		return errors.New("its Sec-WebSocket-Accept is not that of the key")
	case strings.Join(h[FieldExtensions], "") != "":
		return errors.New("an extension was not offered")
	}
	if len(h[FieldProtocol]) > 0 {
		p, ok := only(h[FieldProtocol])
		if !ok || !slices.Contains(hs.protocols, p) {
			return errors.New("the subprotocol was not offered")
		}
	}
	return nil
}
