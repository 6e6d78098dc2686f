// Package reframe owns the framing of the HTTP/1 messages that a guest
// sends: it says where each request begins and ends, and net/http has no
// other opinion.
//
// net/http's server is lenient where proxies have been fooled (RFC 9112
// §11.2): it takes bare LF, folded lines, Content-Length beside chunked.
// A [Conn] stands between guest and server and accepts a strict subset only.
// It checks each head whole before a byte of it goes on, reads each body and
// its trailers to their end itself, and hands on a canonical stream. What
// net/http then serves is what was checked here, for every input and however
// it is split.
//
// Refused are: line ends other than CR LF, empty lines before a request,
// folded lines, control characters, spaces around names, request lines that
// are not three words with single spaces, versions other than HTTP/1.0 and
// HTTP/1.1, no Host (HTTP/1.1), an empty one or two, both framings or one of
// them twice, codings other than chunked, chunk sizes that are not 1–16 hex
// digits, chunk extensions, framing and routing fields in trailers, CONNECT,
// targets that are neither a path, an http(s) URL nor, for OPTIONS, "*",
// upgrades to h2c, and expectations other than 100-continue.
//
// The package decides nothing about names: it gives the facts of each head,
// [Head], to the handler that claims it.
package reframe

import (
	"strings"

	"github.com/cutoutdev/cutout/internal/hostname"
)

// A Head is what a request's head says, byte for byte where it is text.
type Head struct {
	Index  uint64 // of the request on its connection, from 1
	Method string
	Target string // the request target as sent
	Host   string // the Host field as sent, "" if there is none (HTTP/1.0 only)
	Minor  int    // of HTTP/1.x

	// Absolute says that Target is an absolute-form URL, RFC 9112 §3.2.2.
	Absolute bool
	// Authority is Host, parsed. AuthorityOK says that there is one, that it
	// is well-formed, and that an absolute-form target has the same, the
	// connection's scheme and no userinfo.
	Authority   hostname.Authority
	AuthorityOK bool

	Length  int64  // of the body, -1 = chunked
	Upgrade string // the Upgrade field, never h2c
	Expect  bool   // 100-continue

	origin int // where the origin-form begins in Target
}

// Origin returns the target in origin-form, as it is to be sent to the
// server: path and query byte for byte, or "*".
func (h Head) Origin() string {
	switch o := h.Target[h.origin:]; {
	case o == "" && h.Method == "OPTIONS":
		return "*" // RFC 9112 §3.2.4
	case o == "" || o[0] == '?':
		return "/" + o
	default:
		return o
	}
}

// Path returns the origin-form without its query.
func (h Head) Path() string {
	path, _, _ := strings.Cut(h.Origin(), "?")
	return path
}

// Limits. Beyond them a request is refused; common servers take less, so
// that no working client meets them first.
const (
	maxHead    = 64 << 10 // twice nginx's four buffers of 8 KiB; must stay below net/http's own limit
	maxLine    = 16 << 10 // Apache and nginx take 8 KiB, node 16 KiB for the whole head
	maxFields  = 200      // Apache and Envoy take 100
	maxMethod  = 32       // the longest registered method has 17 bytes
	maxTrailer = 4 << 10  // net/http looks for the end of trailers in a buffer of this size
)
