package proxy

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/cutoutdev/cutout/internal/policy"
)

// tunnel relays a connection that has changed its protocol. Only a 101 that
// answers what was asked for opens it, and never with a secret's host.
func (q *request) tunnel(w http.ResponseWriter, out *http.Request, resp *http.Response) {
	asked, got := out.Header.Get("Upgrade"), resp.Header.Get("Upgrade")
	up, ok := resp.Body.(io.ReadWriteCloser)
	if !ok || asked == "" || !strings.EqualFold(asked, got) {
		q.refuse(w, refused(policy.UpstreamFailed))
		return
	}
	h := w.Header()
	copyHeader(h, forwardable(resp.Header))
	h.Set("Connection", "Upgrade")
	h.Set("Upgrade", got)
	w.WriteHeader(http.StatusSwitchingProtocols)
	guest, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer close(q.ended) // no longer the server's
	defer guest.Close()
	if err := q.frames.Raw(); err != nil {
		return
	}
	if err := buffered.Flush(); err != nil {
		return
	}
	defer context.AfterFunc(q.ctx, func() { guest.Close(); up.Close() })()
	early, _ := buffered.Reader.Peek(buffered.Reader.Buffered())
	splice(&replay{Conn: guest, head: early}, &upgraded{Conn: q.raw, rwc: up})
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
