//go:build linux

package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"time"

	"github.com/cutoutdev/cutout/bench/boundary"
)

// pace is the time from one request to the next: such that the client itself
// takes little of the processor.
const pace = 5 * time.Millisecond

// A client is a program in a sandbox that asks api.example.test, with a
// secret, over one connection.
type client struct {
	conn    *tls.Conn
	r       *bufio.Reader
	request string
}

func newClient(ctx context.Context, b *boundary.Boundary) (*client, error) {
	g, err := boundary.Plug(b.Path(socketName), b.Env)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	pem, err := os.ReadFile(b.Path(caName))
	if err != nil || !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New("the boundary has no certificates")
	}
	addrs, err := g.Resolve(ctx, apiName)
	if err != nil {
		return nil, err
	}
	c, err := g.Dial(ctx, "tcp", netip.AddrPortFrom(addrs[0], 443))
	if err != nil {
		return nil, err
	}
	conn := tls.Client(c, &tls.Config{ServerName: apiName, RootCAs: roots})
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return &client{
		conn: conn, r: bufio.NewReader(conn),
		request: fmt.Sprintf("GET /ok HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n\r\n", apiName, b.Env["BENCH_KEY"]),
	}, nil
}

// during makes requests while f runs, and returns how long each took.
func (c *client) during(f func() error) ([]time.Duration, error) {
	var took []time.Duration
	done := make(chan error, 1)
	go func() { done <- f() }()
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return took, err
		case <-tick.C:
		}
		begin := time.Now()
		if err := c.ask(); err != nil {
			return nil, fmt.Errorf("a request of the other sandbox: %w", err)
		}
		took = append(took, time.Since(begin))
	}
}

func (c *client) ask() error {
	c.conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c.conn, c.request); err != nil {
		return err
	}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return err
}
