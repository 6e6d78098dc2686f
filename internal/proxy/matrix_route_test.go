package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/secret"
	"github.com/cutoutdev/cutout/internal/testnet"
)

// A route is how a request reaches an upstream, and what the user has said
// about it.
type route struct {
	name      string
	host      string // "" = good.test, whose secret it is
	port      uint16 // 0 = 443, or 80 in clear
	plain     bool   // HTTP in clear
	stray     bool   // the address was not resolved for the host
	unproved  bool   // the upstream's certificate is nobody's
	authority string // what requests name instead of host
	noVerify  bool   // --tls-no-verify-upstream-for
	action    secret.Action
	rules     func(*secret.Secret)
}

var routes = []route{
	{name: "allowed"},
	{name: "allowed, blocks", action: secret.Block},
	{name: "--allow-plain", plain: true, rules: func(s *secret.Secret) { s.Plain = []hostname.Name{"good.test"} }},
	{name: "--allow-unverified", unproved: true, noVerify: true, rules: func(s *secret.Secret) { s.Unverified = []hostname.Name{"good.test"} }},
	{name: "other host", host: "evil.test"},
	{name: "other host, passed", host: "evil.test", action: secret.Passthrough},
	{name: "other host, blocked", host: "evil.test", action: secret.Block},
	{name: "other port", port: 8443},
	{name: "not pinned", stray: true},
	{name: "not proved", unproved: true},
	{name: "unverified", unproved: true, noVerify: true},
	{name: "other authority", authority: "evil.test"},
	{name: "out of scope", rules: func(s *secret.Secret) { s.Scopes = []secret.Scope{{Method: "*", Path: "/elsewhere/**"}} }},
	{name: "plain", plain: true},
}

// matrixValue holds what each syntax must escape, and is no token of YAML.
const matrixValue = `v4l"e\0f <the> t&st's é%2B+/=~s3cret`

// A course is a route with its boundary and upstream.
type course struct {
	*world
	route
	client *http.Client
	value  secret.Value
	set    atomic.Pointer[secret.Set]
	sets   map[string]*secret.Set
	heard  sync.Map // by cell: what a WebSocket said
}

func (r route) open(t *testing.T, protocol string) *course {
	c := &course{route: r, sets: make(map[string]*secret.Set)}
	if c.host == "" {
		c.host = "good.test"
	}
	if c.port == 0 {
		c.port = map[bool]uint16{false: 443, true: 80}[r.plain]
	}
	c.world = newWorld(t, protocol, func(w *world) {
		w.cfg.Intercept, w.cfg.OnViolation.Action = All, r.action
		w.cfg.Secrets = c.set.Load
		if r.noVerify {
			w.cfg.NoVerify = []hostname.Name{"good.test"}
		}
		cfg := testnet.UpstreamConfig{Handler: http.HandlerFunc(c.echo)}
		switch {
		case r.unproved:
			cfg.Cert = ptr(must(w.ca.SelfSigned(c.host)))
		case !r.plain:
			cfg.Cert = ptr(must(w.ca.Cert(c.host)))
		}
		w.good = w.start(cfg)
		addr := netip.AddrPortFrom(goodAddr.Addr(), c.port)
		if c.host == "evil.test" {
			addr = evilAddr
		}
		w.serve(c.host, addr, w.good.Addr())
		if r.stray {
			w.names["good.test:443"] = strayAddr
			w.to[strayAddr] = w.good.Addr()
		}
		c.value = load(t, w.store, matrixValue)
		c.set.Store(must(secret.NewSet([]*secret.Secret{{Name: "API_KEY", Placeholder: placeholder, Value: c.value, Hosts: hosts(443)}})))
	})
	c.client = c.world.client()
	c.client.Timeout = 0 // would take the connection of a WebSocket away
	return c
}

var strayAddr = netip.MustParseAddrPort("93.184.216.99:443")

func ptr[T any](v T) *T { return &v }

func hosts(port uint16) []secret.Host {
	return []secret.Host{{Pattern: must(hostname.ParsePattern("good.test")), Port: port}}
}

// use makes the secret one whose surfaces are those of the cell.
func (c *course) use(x cell) {
	key := x.secretKey()
	if c.sets[key] == nil {
		s := &secret.Secret{Name: "API_KEY", Placeholder: x.place.placeholder(), Value: c.value, Hosts: hosts(443), Surfaces: ptr(x.place.surfaces(x.on))}
		if c.rules != nil {
			c.rules(s)
		}
		c.sets[key] = must(secret.NewSet([]*secret.Secret{s}))
	}
	c.set.Store(c.sets[key])
}

// echo answers with all that was said.
func (c *course) echo(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") != "" {
		c.converse(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	fmt.Fprintln(w, r.Method, r.RequestURI)
	r.Header.Write(w)
	r.Trailer.Write(w)
	w.Write(body)
}

// converse is the upstream's side of a WebSocket: it echoes messages.
func (c *course) converse(w http.ResponseWriter, r *http.Request) {
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n", socketAccept(r.Header.Get("Sec-WebSocket-Key")))
	said, frames := hearAll(buf.Reader)
	c.heard.Store(r.Header.Get("X-Cell"), said)
	for _, f := range frames {
		io.WriteString(conn, frame(f.first, false, f.payload))
	}
}

// say says text in a WebSocket that is open and returns all that is heard.
func say(conn io.ReadWriter, opcode byte, text string) string {
	io.WriteString(conn, frame(0x80|opcode, true, text)+frame(0x88, true, "\x03\xe8"))
	said, _ := hearAll(bufio.NewReader(conn))
	return strings.Join(said, "\n")
}
