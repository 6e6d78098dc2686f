package proxy

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/testnet"
)

// rawGood makes good.test a server whose bytes are written by hand.
func rawGood(serve func(net.Conn)) option {
	return func(w *world) {
		cert := must(w.ca.Cert("good.test"))
		u := must(testnet.StartRaw(testnet.RawConfig{Serve: func(c net.Conn) {
			s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{map[string]string{"h1": "http/1.1", "h2": "h2"}[w.protocol]}})
			defer s.Close()
			s.SetDeadline(time.Now().Add(20 * time.Second))
			if s.Handshake() == nil {
				serve(s)
			}
		}}))
		w.root.Cleanup(func() { u.Close() })
		w.to[goodAddr] = u.Addr()
	}
}

// TestEarlyHints: interim answers go on, as often as they come and without
// values; 100 is the boundary's own, once.
func TestEarlyHints(t *testing.T) {
	w := newWorld(t, "h1", rawGood(func(c net.Conn) {
		r := bufio.NewReader(c)
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		got := req.Header.Get("Authorization")
		for i := range 3 {
			fmt.Fprintf(c, "HTTP/1.1 103 %s\r\nLink: </%d?%s>; rel=preload\r\nAlt-Svc: h3\r\n\r\n", got, i, got)
		}
		io.WriteString(c, "HTTP/1.1 100 Continue\r\nX: "+got+"\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		io.Copy(io.Discard, r)
	}))
	c := w.raw1()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: good.test\r\n"+auth+"\r\n")
	for i := range 3 {
		resp, err := http.ReadResponse(c.r, nil)
		if err != nil || resp.StatusCode != 103 {
			t.Fatalf("answer %d: %v %v", i, resp, err)
		}
		if got, want := resp.Header.Get("Link"), fmt.Sprintf("</%d?Bearer %s>; rel=preload", i, placeholder); got != want || resp.Header.Get("Alt-Svc") != "" {
			t.Errorf("hint %d is %q", i, resp.Header)
		}
		w.clean(resp.Status)
	}
	if a := c.read(); a.status != 200 || a.body != "ok" {
		t.Errorf("answer is %d %q %v", a.status, a.body, a.err)
	}
	w.expect(audit.Scrubbed, policy.None)
}

// TestContinueOnce: whatever the server says, and how often, the guest is
// told to continue once.
func TestContinueOnce(t *testing.T) {
	for name, interim := range map[string]string{
		"once":  "HTTP/1.1 100 Continue\r\n\r\n",
		"twice": "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n",
		"never": "",
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "h1", rawGood(func(c net.Conn) {
				r := bufio.NewReader(c)
				req, err := http.ReadRequest(r)
				if err != nil {
					return
				}
				io.WriteString(c, interim)
				body, _ := io.ReadAll(req.Body)
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
				io.Copy(io.Discard, r)
			}))
			c := w.raw1()
			io.WriteString(c, "POST / HTTP/1.1\r\nHost: good.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n"+auth+"\r\n")
			if a := c.read(); a.status != 100 {
				t.Fatalf("first answer is %d %v", a.status, a.err)
			}
			io.WriteString(c, "hello")
			if a := c.read(); a.status != 200 || a.body != "hello" {
				t.Errorf("second answer is %d %q %v", a.status, a.body, a.err)
			}
		})
	}
}

// TestNoPush: the boundary tells the upstream not to push, takes a push for
// the fault that it then is, and promises the guest nothing. RFC 9113 §8.4.
func TestNoPush(t *testing.T) {
	push := make(chan string, 1)
	ended := make(chan error, 1)
	w := newWorld(t, "h2", rawGood(func(c net.Conn) {
		io.ReadFull(c, make([]byte, len(http2.ClientPreface)))
		f := http2.NewFramer(c, c)
		f.WriteSettings()
		var block bytes.Buffer
		enc := hpack.NewEncoder(&block)
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				ended <- err
				return
			}
			switch frame := frame.(type) {
			case *http2.SettingsFrame:
				if !frame.IsAck() {
					v, ok := frame.Value(http2.SettingEnablePush)
					push <- fmt.Sprint(v, ok)
					f.WriteSettingsAck()
				}
			case *http2.GoAwayFrame:
				ended <- http2.ConnectionError(frame.ErrCode)
				return
			case *http2.HeadersFrame:
				for _, h := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "good.test"}, {":path", "/pushed"}} {
					enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
				}
				f.WritePushPromise(http2.PushPromiseParam{StreamID: frame.StreamID, PromiseID: 2, BlockFragment: block.Bytes(), EndHeaders: true})
				block.Reset()
				enc.WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
				f.WriteHeaders(http2.HeadersFrameParam{StreamID: 2, BlockFragment: block.Bytes(), EndHeaders: true})
				f.WriteData(2, true, []byte(value))
			}
		}
	}))
	c := w.raw2()
	c.request(1, ":method", "GET", ":scheme", "https", ":path", "/", ":authority", "good.test", "authorization", "Bearer "+placeholder)
	status := ""
	for status == "" {
		frame, err := c.framer.ReadFrame()
		if err != nil {
			break
		}
		switch frame := frame.(type) {
		case *http2.PushPromiseFrame:
			t.Error("the guest was promised something")
		case *http2.SettingsFrame:
			if v, ok := frame.Value(http2.SettingEnableConnectProtocol); ok && v != 0 {
				t.Error("extended CONNECT is offered")
			}
			if v, ok := frame.Value(http2.SettingEnablePush); ok && v != 0 {
				t.Error("a server announces push")
			}
		case *http2.DataFrame:
			w.clean(string(frame.Data()))
		case *http2.MetaHeadersFrame:
			status = frame.PseudoValue("status")
		case *http2.RSTStreamFrame:
			status = "reset"
		}
	}
	if status == "200" {
		t.Error("the push was taken for an answer")
	}
	select {
	case got := <-push:
		if got != "0 true" {
			t.Errorf("SETTINGS_ENABLE_PUSH is %s", got)
		}
	case <-time.After(5 * time.Second):
		t.Error("no settings")
	}
	select {
	case err := <-ended:
		if !strings.Contains(err.Error(), "PROTOCOL_ERROR") && err != io.EOF {
			t.Errorf("the upstream's connection ended with %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("the upstream's connection goes on after a push")
	}
}

// A guest that pushes breaks the protocol too.
func TestGuestPush(t *testing.T) {
	w := newWorld(t, "h2")
	c := w.raw2()
	c.request(1, ":method", "GET", ":scheme", "https", ":path", "/ok", ":authority", "good.test")
	c.framer.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, BlockFragment: c.block.Bytes(), EndHeaders: true})
	for {
		frame, err := c.framer.ReadFrame()
		if err != nil {
			t.Fatalf("no GOAWAY: %v", err)
		}
		if g, ok := frame.(*http2.GoAwayFrame); ok {
			if g.ErrCode != http2.ErrCodeProtocol {
				t.Errorf("ended with %v", g.ErrCode)
			}
			return
		}
	}
}
