package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/ca"
	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/pin"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/secret"
	"github.com/cutoutdev/cutout/internal/testnet"
)

const (
	value       = "v4lu3-0f-the-test-s3cret-91827364"
	placeholder = "$MSB_API_KEY"
)

// The addresses of the tests' internet. They are public, so that the network
// policy lets them pass; nothing is ever sent there.
var (
	goodAddr = netip.MustParseAddrPort("93.184.216.34:443")
	evilAddr = netip.MustParseAddrPort("93.184.216.66:443")
)

// A world is a boundary with its upstreams.
type world struct {
	t        testing.TB // whose complaint it is: a subtest's, for a time
	root     testing.TB // that ends the world
	cfg      Config
	proxy    *Proxy
	ca       *testnet.CA
	leafs    *ca.Authority
	pins     *pin.Table
	store    *secret.Store
	good     *testnet.Upstream // good.test, whose secret it is
	evil     *testnet.Upstream // evil.test, which is nobody's
	protocol string            // h1 or h2: what the guest and its upstreams speak

	mu     sync.Mutex
	events []audit.Event
	dialed []netip.AddrPort
	to     map[netip.AddrPort]netip.AddrPort // where addresses are
	names  map[string]netip.AddrPort         // what the guest's resolver says
	ended  []policy.Reason                   // calls of Terminate
}

// protocols runs a test over each of them.
func protocols(t *testing.T, f func(t *testing.T, protocol string)) {
	for _, p := range []string{"h1", "h2"} {
		t.Run(p, func(t *testing.T) { f(t, p) })
	}
}

type option func(*world)

func newWorld(t testing.TB, protocol string, options ...option) *world {
	t.Helper()
	w := &world{
		t: t, root: t, protocol: protocol, pins: new(pin.Table),
		to: make(map[netip.AddrPort]netip.AddrPort), names: make(map[string]netip.AddrPort),
	}
	w.ca = must(testnet.NewCA())
	w.store = must(secret.NewStore(0))
	t.Cleanup(func() { w.store.Close() })
	w.leafs = must(ca.New(ca.Config{Allow: func(hostname.Name) bool { return true }}))
	log := must(audit.Create(filepath.Join(t.TempDir(), "audit.jsonl"), audit.Config{Observe: w.note}))
	t.Cleanup(func() { log.Close() })

	w.good = w.upstream("good.test")
	w.evil = w.upstream("evil.test")
	w.serve("good.test", goodAddr, w.good.Addr())
	w.serve("evil.test", evilAddr, w.evil.Addr())

	set := must(secret.NewSet([]*secret.Secret{w.secret("API_KEY", placeholder, value, "good.test", 443)}))
	w.cfg = Config{
		Secrets: func() *secret.Set { return set },
		Store:   w.store,
		CA:      w.leafs,
		Pins:    w.pins,
		Audit:   log,
		Network: &policy.Network{Local: func(netip.Addr) bool { return false }},
		Dial:    w.dialUpstream,
		Roots:   w.ca.Pool(),
		Terminate: func(r policy.Reason) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.ended = append(w.ended, r)
		},
	}
	for _, o := range options {
		o(w)
	}
	w.proxy = must(New(w.cfg))
	t.Cleanup(func() { w.proxy.tidy.timer.Stop() }) // TestTidier counts the process's collections
	return w
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// secret makes a secret with its value in the world's store.
func (w *world) secret(name, placeholder, value, host string, port uint16) *secret.Secret {
	return &secret.Secret{
		Name: name, Placeholder: placeholder, Value: load(w.t, w.store, value),
		Hosts: []secret.Host{{Pattern: must(hostname.ParsePattern(host)), Port: port}},
	}
}

func load(t testing.TB, store *secret.Store, value string) secret.Value {
	t.Helper()
	return must(testnet.Value(store, value))
}

// secrets replaces the world's secrets.
func secrets(make func(w *world) []*secret.Secret) option {
	return func(w *world) {
		set := must(secret.NewSet(make(w)))
		w.cfg.Secrets = func() *secret.Set { return set }
	}
}

// upstream starts an upstream of the world's protocol with a good certificate.
func (w *world) upstream(name string) *testnet.Upstream {
	cert := must(w.ca.Cert(name))
	return w.start(testnet.UpstreamConfig{Cert: &cert})
}

func (w *world) start(cfg testnet.UpstreamConfig) *testnet.Upstream {
	if cfg.Cert != nil {
		cfg.HTTP1, cfg.HTTP2 = w.protocol == "h1", w.protocol == "h2"
	}
	u := must(testnet.StartUpstream(cfg))
	w.root.Cleanup(func() { u.Close() })
	return u
}

// serve makes name resolve to addr, pinned, and addr lead to real.
func (w *world) serve(name string, addr, real netip.AddrPort) {
	w.names[name+":"+fmt.Sprint(addr.Port())] = addr
	w.to[addr] = real
	w.pins.Add(hostname.Name(name), addr.Addr(), time.Hour)
}

func (w *world) dialUpstream(ctx context.Context, dst netip.AddrPort) (net.Conn, error) {
	w.mu.Lock()
	w.dialed = append(w.dialed, dst)
	real, ok := w.to[dst]
	w.mu.Unlock()
	if !ok {
		return nil, errors.New("no such host")
	}
	return new(net.Dialer).DialContext(ctx, "tcp", real.String())
}

func (w *world) note(e audit.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, e)
}

// wasDialed reports whether dst was.
func (w *world) wasDialed(dst netip.AddrPort) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Contains(w.dialed, dst)
}

// found returns the events of a kind.
func (w *world) found(kind string) []audit.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []audit.Event
	for _, e := range w.events {
		if e.Event == kind {
			out = append(out, e)
		}
	}
	return out
}

// expect waits for an event of kind with reason.
func (w *world) expect(kind string, reason policy.Reason) audit.Event {
	w.t.Helper()
	for range 50 {
		for _, e := range w.found(kind) {
			if e.Reason == reason {
				return e
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	w.t.Fatalf("no event %s %s among %v", kind, reason, w.events)
	return audit.Event{}
}

// terminated waits for the sandbox's end and returns why.
func (w *world) terminated() []policy.Reason {
	for range 50 {
		w.mu.Lock()
		ended := slices.Clone(w.ended)
		w.mu.Unlock()
		if len(ended) > 0 {
			return ended
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}

// connect opens a connection as the guest does.
func (w *world) connect(_ context.Context, dst netip.AddrPort) (net.Conn, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	verdict := make(chan bool, 1)
	f := Flow{
		Src: netip.MustParseAddrPort("10.99.0.2:40000"), Dst: dst,
		Accept: func() (net.Conn, error) { defer func() { verdict <- true }(); return l.Accept() },
		Refuse: func() { verdict <- false },
	}
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, err
	}
	done := make(chan struct{})
	go func() { w.proxy.ServeTCP(context.Background(), f); close(done) }()
	w.root.Cleanup(func() {
		c.Close()
		select {
		case <-done:
		case <-time.After(5 * time.Second):
			w.root.Error("ServeTCP did not return")
		}
	})
	if !<-verdict {
		c.Close()
		return nil, errRefused
	}
	return c, nil
}

var errRefused = errors.New("connection refused")

// roots is the guest's trust store.
func (w *world) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(w.leafs.CertPEM())
	return pool
}

// guestTLS is the TLS configuration of a client in the guest.
func (w *world) guestTLS() *tls.Config {
	alpn := []string{"http/1.1"}
	if w.protocol == "h2" {
		alpn = []string{"h2"}
	}
	return &tls.Config{RootCAs: w.roots(), NextProtos: alpn}
}

// client returns an HTTP client in the guest.
func (w *world) client() *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(w.protocol == "h1")
	protocols.SetHTTP2(w.protocol == "h2")
	tr := &http.Transport{
		Protocols:          protocols,
		TLSClientConfig:    w.guestTLS(),
		DisableCompression: true,
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			dst, ok := w.names[addr]
			if !ok {
				return nil, fmt.Errorf("%s does not resolve", addr)
			}
			return w.connect(ctx, dst)
		},
	}
	w.root.Cleanup(tr.CloseIdleConnections)
	return &http.Client{
		Transport: tr, Timeout: 30 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// An answer is a response, read to the end.
type answer struct {
	status int
	header http.Header
	body   string
	all    string // the head's fields, body and trailers, to be searched
	err    error  // that ended the body
}

// do sends a request and reads the answer.
func (w *world) do(c *http.Client, method, url string, body io.Reader, edit func(*http.Request)) answer {
	w.t.Helper()
	r, err := http.NewRequest(method, url, body)
	if err != nil {
		w.t.Fatal(err)
	}
	if edit != nil {
		edit(r)
	}
	resp, err := c.Do(r)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	var all bytes.Buffer
	fmt.Fprintln(&all, resp.Status)
	resp.Header.Write(&all)
	all.Write(text)
	resp.Trailer.Write(&all)
	return answer{resp.StatusCode, resp.Header, string(text), all.String(), err}
}

// stream asks good.test for path with a credential, and returns the answer
// unread.
func (w *world) stream(c *http.Client, path string) *http.Response {
	w.t.Helper()
	c.Timeout = 0 // it may last
	r := must(http.NewRequest("GET", "https://good.test"+path, nil))
	r.Header.Set("Authorization", "Bearer "+placeholder)
	resp, err := c.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	w.root.Cleanup(func() { resp.Body.Close() })
	return resp
}

// get is do with a bearer token.
func (w *world) get(c *http.Client, url, token string) answer {
	w.t.Helper()
	return w.do(c, "GET", url, nil, func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) })
}

// refused checks that a is a refusal for reason, told and recorded.
func (w *world) refused(a answer, status int, reason policy.Reason) {
	w.t.Helper()
	if a.err != nil || a.status != status || !strings.Contains(a.body, `"reason":"`+string(reason)+`"`) {
		w.t.Errorf("answer is %d %s %v, want %d %s", a.status, a.body, a.err, status, reason)
	}
	w.clean(a.all)
	w.expect(audit.Refused, reason)
}

// clean checks that no form of the value is in what the guest reads.
func (w *world) clean(text string) {
	w.t.Helper()
	if strings.Contains(text, value) {
		w.t.Errorf("the guest reads the value: %q", text)
	}
}

// unseen checks that no upstream has got the value.
func (w *world) unseen() {
	w.t.Helper()
	for _, u := range []*testnet.Upstream{w.good, w.evil} {
		for _, r := range u.Requests() {
			if strings.Contains(r.Text(), value) {
				w.t.Errorf("an upstream has got the value: %s", r.Text())
			}
		}
	}
}

// last waits for the n-th request of u and returns it.
func (w *world) last(u *testnet.Upstream, n int) testnet.Request {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	got, err := u.Wait(ctx, n)
	if err != nil {
		w.t.Fatalf("%d requests, want %d: %v", len(got), n, err)
	}
	return got[n-1]
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
