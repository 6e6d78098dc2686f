package metrics

import (
	"bytes"
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/common/expfmt"
	"golang.org/x/net/netutil"
)

// maxConns bounds who may ask at once: a scraper has one connection.
const maxConns = 16

// Serve answers GET /metrics on l, which it closes, until ctx ends.
func (c *Counters) Serve(ctx context.Context, l net.Listener, live func() Live) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		if !addressed(l.Addr(), r.Host) {
			http.Error(w, "ask by address", http.StatusMisdirectedRequest)
			return
		}
		var text bytes.Buffer
		if err := c.Write(&text, live()); err != nil {
			http.Error(w, "the metrics cannot be written", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", string(expfmt.NewFormat(expfmt.TypeTextPlain)))
		text.WriteTo(w)
	})
	srv := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 10 * time.Second,
		WriteTimeout:      10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          log.New(io.Discard, "", 0),
	}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	srv.Serve(netutil.LimitListener(l, maxConns))
}

// addressed reports whether host, as a request names it, is an address: a page
// in a browser whose own name was made to lead to the loopback is not to read
// what is served there.
func addressed(at net.Addr, host string) bool {
	tcp, ok := at.(*net.TCPAddr)
	if !ok || !tcp.IP.IsLoopback() {
		return true
	}
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil || host == "localhost"
}
