package otlp

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/cutoutdev/cutout/internal/secret"
)

// maxAnswer bounds what is read of a collector's answer, which says nothing
// that is needed.
const maxAnswer = 64 << 10

// A connection to a collector, which one request at a time goes over.
type connection struct {
	net.Conn
	answers *bufio.Reader
}

// A statusError is an answer other than 2xx.
type statusError struct {
	code  int
	after time.Duration // how long to wait, if it says so
}

func (e *statusError) Error() string { return "it answers " + strconv.Itoa(e.code) }

// final reports whether to send the same again is of no use: OTLP 1.0,
// "Failures".
func (e *statusError) final() bool {
	switch e.code {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return false
	}
	return true
}

// post sends one request, over the connection that there is if it still
// works. Its errors hold nothing that the collector chose.
func (x *Exporter) post(ctx context.Context, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, x.cfg.Timeout)
	defer cancel()
	again := x.conn != nil
	err := x.try(ctx, body)
	if e := (*statusError)(nil); again && err != nil && !errors.As(err, &e) && ctx.Err() == nil {
		err = x.try(ctx, body) // it was closed meanwhile
	}
	if ctx.Err() != nil && err != nil {
		return errors.New("it does not answer in time")
	}
	return err
}

func (x *Exporter) try(ctx context.Context, body []byte) (err error) {
	if x.conn == nil {
		if x.conn, err = x.dial(ctx); err != nil {
			return err
		}
	}
	c := x.conn
	keep := false
	defer func() {
		if !keep {
			c.Close()
			x.conn = nil
		}
	}()
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := x.send(c, body); err != nil {
		if errors.Is(err, secret.ErrFields) {
			return err
		}
		return errors.New("the connection broke")
	}
	resp, err := http.ReadResponse(c.answers, nil)
	if err != nil {
		return errors.New("it answers something else than HTTP")
	}
	n, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer))
	keep = err == nil && n < maxAnswer && !resp.Close
	if resp.StatusCode/100 != 2 {
		seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
		return &statusError{resp.StatusCode, time.Duration(seconds) * time.Second}
	}
	return nil
}

// send writes a request. Its head is written here and not by net/http, which
// would keep the headers' values in its buffers: they go out of the locked
// store.
func (x *Exporter) send(c net.Conn, body []byte) error {
	head := "POST " + x.url.RequestURI() + " HTTP/1.1\r\nHost: " + x.url.Host + "\r\nUser-Agent: cutout\r\n" +
		"Content-Type: application/x-protobuf\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n"
	if x.cfg.Gzip {
		head += "Content-Encoding: gzip\r\n"
	}
	var err error
	if x.cfg.Headers.IsZero() {
		_, err = io.WriteString(c, head+"\r\n")
	} else {
		err = x.cfg.Store.WriteLogin(c, x.cfg.Headers, secret.FieldsLogin, head, "\r\n")
	}
	if err == nil {
		_, err = c.Write(body)
	}
	return err
}

func (x *Exporter) dial(ctx context.Context) (*connection, error) {
	var c net.Conn
	c, err := new(net.Dialer).DialContext(ctx, "tcp", address(x.url))
	if err != nil {
		return nil, errors.New("it cannot be reached")
	}
	if x.url.Scheme == "https" {
		secure := tls.Client(c, &tls.Config{ServerName: x.url.Hostname(), RootCAs: x.cfg.Roots, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12})
		if err := secure.HandshakeContext(ctx); err != nil {
			c.Close()
			if errors.As(err, new(*tls.CertificateVerificationError)) {
				return nil, fmt.Errorf("its certificate is not valid for %s", x.url.Hostname())
			}
			return nil, errors.New("it does not complete the TLS handshake")
		}
		c = secure
	}
	return &connection{Conn: c, answers: bufio.NewReader(c)}, nil
}

func address(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

func compressed(body []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	w.Write(body)
	w.Close()
	return out.Bytes()
}
