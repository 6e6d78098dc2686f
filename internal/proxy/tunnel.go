package proxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"slices"
	"strings"

	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/rewrite"
	"github.com/cutoutdev/cutout/internal/splice"
	"github.com/cutoutdev/cutout/internal/websocket"
)

// handshake judges a request to change the protocol. On a secret's host that
// can be WebSocket alone, asked for as RFC 6455 §4.1 says: what follows any
// other could not be judged.
func (q *request) handshake() *refusal {
	if q.upgrades == "" {
		return nil
	}
	hs, err := websocket.Request(q.in)
	if err == nil && slices.ContainsFunc(q.swap, inHandshake) {
		err = errors.New("a placeholder stands in the handshake itself")
	}
	if err == nil {
		q.socket = hs
		return nil
	}
	if !q.guarded() {
		return nil
	}
	r := refused(policy.UpgradeRefused)
	r.detail = err.Error()
	return r
}

// inHandshake reports whether o is in a field that the boundary itself has a
// part in.
func inHandshake(o rewrite.Occurrence) bool {
	switch textproto.CanonicalMIMEHeaderKey(o.Field) {
	case websocket.FieldKey, websocket.FieldVersion, websocket.FieldExtensions, "Upgrade", "Connection":
		return o.Position == rewrite.Header
	}
	return false
}

// tunnel relays a connection that has changed its protocol. Only a 101 that
// answers what was asked for opens it; with a secret's host only one that
// opens a WebSocket without extension, whose messages are then searched.
func (q *request) tunnel(w http.ResponseWriter, out *http.Request, resp *http.Response) {
	h := (&response{request: q, resp: resp, scrub: q.scrubber()}).header()
	h["Connection"], h["Upgrade"] = resp.Header["Connection"], resp.Header["Upgrade"]
	up, ok := resp.Body.(io.ReadWriteCloser)
	open := errors.New("it was not asked to change the protocol")
	if q.socket != nil {
		open = q.socket.Response(h)
	}
	asked, got := out.Header.Get("Upgrade"), resp.Header.Get("Upgrade")
	if !ok || asked == "" || !strings.EqualFold(asked, got) || q.guarded() && open != nil {
		no := refused(policy.UpstreamFailed)
		no.detail, no.last = "its answer to the handshake is wrong", true
		if open != nil {
			no.detail += ": " + open.Error()
		}
		q.refuse(w, no)
		return
	}
	if q.seal != nil && q.seal.Upgraded() != nil {
		panic(http.ErrAbortHandler)
	}
	h["Connection"], h["Upgrade"] = []string{"Upgrade"}, []string{got}
	guest, buffered := q.hijack(w, h)
	defer close(q.ended) // no longer the server's
	defer guest.Close()
	if err := q.frames.Raw(); err != nil {
		return
	}
	if err := buffered.Flush(); err != nil {
		return
	}
	q.use.end() // each message has its own
	q.forget()  // a marker that was not written would delay what looks like it
	defer context.AfterFunc(q.ctx, func() { guest.Close(); up.Close() })()
	early, _ := buffered.Reader.Peek(buffered.Reader.Buffered())
	client, server := &replay{Conn: guest, head: early}, &upgraded{Conn: q.raw, rwc: up}
	if open == nil {
		q.converse(client, server)
		return
	}
	splice.Join(client, server)
}

// hijack answers with 101 and h and takes the guest's connection.
func (q *request) hijack(w http.ResponseWriter, h http.Header) (net.Conn, *bufio.ReadWriter) {
	copyHeader(w.Header(), h)
	w.WriteHeader(http.StatusSwitchingProtocols)
	guest, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	return guest, buffered
}

// An upgraded is the upstream's side of a tunnel: the connection as net/http
// hands it out, which may have read ahead.
type upgraded struct {
	net.Conn
	rwc io.ReadWriteCloser
}

func (u *upgraded) Read(p []byte) (int, error)  { return u.rwc.Read(p) }
func (u *upgraded) Write(p []byte) (int, error) { return u.rwc.Write(p) }
func (u *upgraded) Close() error                { return u.rwc.Close() }
