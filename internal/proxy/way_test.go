package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/egress"
	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/secret"
	"github.com/cutoutdev/cutout/internal/testnet"
)

// A relayed is what a world's upstream proxy knows and is.
type relayed struct {
	to     map[string]netip.AddrPort
	bypass string
	url    string // "" = the proxy itself, by CONNECT
	login  string // "" = the right one
	proxy  *testnet.Proxy
}

// through gives the world an upstream proxy.
func through(r *relayed) option {
	return func(w *world) {
		r.proxy = must(testnet.StartProxy(r.to, nil))
		w.root.Cleanup(r.proxy.Close)
		if r.url == "" {
			r.url = "http://" + r.proxy.Addr()
		}
		if r.login == "" {
			r.login = testnet.ProxyLogin
		}
		w.cfg.Egress = r.egress(w)
	}
}

func (r *relayed) egress(w *world) *egress.Proxy {
	s := must(egress.Parse(r.url))
	s.Bypass = r.bypass
	p := egress.New(s)
	p.Store, p.Login = w.store, load(w.t, w.store, r.login)
	return p
}

// TestThroughProxy: requests go out through the proxy alone, which is asked
// for the name, and the value arrives.
func TestThroughProxy(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		r := &relayed{to: map[string]netip.AddrPort{}}
		w := newWorld(t, protocol, through(r))
		r.to["good.test:443"] = w.good.Addr()
		a := w.get(w.client(), "https://good.test/ok", placeholder)
		if a.status != 200 || !strings.Contains(w.last(w.good, 1).Text(), value) {
			t.Errorf("answer %d %v", a.status, a.err)
		}
		if asked := r.proxy.Asked(); !slices.Equal(asked, []string{"good.test:443"}) || len(w.dialed) != 0 {
			t.Errorf("the proxy was asked for %v, and %v was dialled", asked, w.dialed)
		}
	})
}

// TestProxyLeadsElsewhere: where the proxy leads is found out by gate 3.
func TestProxyLeadsElsewhere(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		r := &relayed{to: map[string]netip.AddrPort{}}
		w := newWorld(t, protocol, through(r))
		r.to["good.test:443"] = w.evil.Addr()
		w.refused(w.get(w.client(), "https://good.test/ok", placeholder), 403, policy.UpstreamUnverified)
		w.unseen()
		if n := len(w.evil.Requests()); n != 0 {
			t.Errorf("evil.test got %d requests", n)
		}
	})
}

// TestProxyExceptions: neither an unverified host nor one in clear gets the
// value through a proxy, though the user admitted both; without the proxy they
// do.
func TestProxyExceptions(t *testing.T) {
	for _, bypass := range []string{"", "good.test"} {
		r := &relayed{to: map[string]netip.AddrPort{}, bypass: bypass}
		w := newWorld(t, "h1", through(r), func(w *world) {
			s := w.secret("API_KEY", placeholder, value, "good.test", 443)
			s.Plain, s.Unverified = []hostname.Name{"good.test"}, []hostname.Name{"good.test"}
			set := must(secret.NewSet([]*secret.Secret{s}))
			w.cfg.Secrets = func() *secret.Set { return set }
			w.cfg.NoVerify = s.Unverified
		})
		plain := w.start(testnet.UpstreamConfig{})
		w.serve("good.test", netip.AddrPortFrom(goodAddr.Addr(), 80), plain.Addr())
		w.to[goodAddr] = w.evil.Addr()
		r.to["good.test:443"], r.to["good.test:80"] = w.evil.Addr(), plain.Addr()
		secure := w.get(w.client(), "https://good.test/ok", placeholder)
		clear := w.get(w.client(), "http://good.test/ok", placeholder)
		if bypass != "" {
			if secure.status != 200 || clear.status != 200 || len(r.proxy.Asked()) != 0 || !strings.Contains(w.last(plain, 1).Text(), value) {
				t.Errorf("without the proxy: %+v %+v", secure, clear)
			}
			continue
		}
		w.refused(secure, 403, policy.UpstreamUnverified)
		w.refused(clear, 403, policy.PlainHTTP)
		w.unseen()
		for _, got := range plain.Requests() {
			if strings.Contains(got.Text(), value) {
				t.Error("the value went out in clear")
			}
		}
	}
}

// TestProxyRefusals: with a secret's host the guest is told what the proxy
// says; elsewhere its SYN is refused. Nothing is dialled instead.
func TestProxyRefusals(t *testing.T) {
	dead := must(net.Listen("tcp", "127.0.0.1:0"))
	dead.Close()
	for want, r := range map[policy.Reason]*relayed{
		policy.ProxyRefused:    {},
		policy.ProxyAuthFailed: {login: "cutout:wrong-password"},
		policy.ProxyFailed:     {url: "http://" + dead.Addr().String()},
	} {
		protocols(t, func(t *testing.T, protocol string) {
			w := newWorld(t, protocol, through(&relayed{login: r.login, url: r.url}))
			w.refused(w.get(w.client(), "https://good.test/ok", placeholder), 502, want)
			w.names["evil.test:22"] = netip.AddrPortFrom(evilAddr.Addr(), 22)
			if _, err := w.connect(t.Context(), w.names["evil.test:22"]); err != errRefused {
				t.Errorf("evil.test:22: %v", err)
			}
			w.expect(audit.Denied, want)
			if len(w.dialed) != 0 {
				t.Errorf("%v was dialled", w.dialed)
			}
		})
	}
}

// TestProxyStillJudges: no proxy is asked for what the rules deny, nor for a
// secret's host at an address that was not resolved for it.
func TestProxyStillJudges(t *testing.T) {
	r := &relayed{to: map[string]netip.AddrPort{}}
	w := newWorld(t, "h1", through(r))
	r.to["good.test:443"] = w.good.Addr()
	private := netip.MustParseAddrPort("10.0.0.5:443")
	w.pins.Add("private.test", private.Addr(), time.Hour)
	if _, err := w.connect(t.Context(), private); err != errRefused {
		t.Errorf("a private address: %v", err)
	}
	w.expect(audit.Denied, policy.AddressDenied)
	w.names["good.test:443"] = netip.MustParseAddrPort("93.184.216.99:443")
	w.refused(w.get(w.client(), "https://good.test/ok", placeholder), 403, policy.NotPinned)
	if asked := r.proxy.Asked(); len(asked) != 0 {
		t.Errorf("the proxy was asked for %v", asked)
	}
}

// TestProxyIsAskedForTheNameThatIsMeant: several names may have one address.
func TestProxyIsAskedForTheNameThatIsMeant(t *testing.T) {
	const banner = "220 ready\r\n"
	hello := func(name string) string {
		return fmt.Sprintf("GET / HTTP/1.1\r\nHost: %s\r\n\r\n", name)
	}
	for name, tt := range map[string]struct {
		names []string
		says  string
		want  string
	}{
		"the server speaks first":   {[]string{"one.test"}, "", "one.test:8080"},
		"nobody knows a name":       {nil, "", "93.184.216.77:8080"},
		"one of two":                {[]string{"one.test", "two.test"}, hello("two.test"), "two.test:8080"},
		"the other of two":          {[]string{"one.test", "two.test"}, hello("one.test"), "one.test:8080"},
		"one that was not resolved": {[]string{"one.test", "two.test"}, hello("three.test"), "93.184.216.77:8080"},
		"not the only one":          {[]string{"one.test"}, hello("three.test"), "93.184.216.77:8080"},
		"the only one":              {[]string{"one.test"}, hello("one.test"), "one.test:8080"},
	} {
		server := testnet.RawConfig{Banner: banner}
		if tt.says != "" { // one that waits
			server = testnet.RawConfig{Reply: banner}
		}
		raw := must(testnet.StartRaw(server))
		t.Cleanup(func() { raw.Close() })
		at := raw.Addr()
		r := &relayed{to: map[string]netip.AddrPort{"one.test:8080": at, "two.test:8080": at, "three.test:8080": at, "93.184.216.77:8080": at}}
		w := newWorld(t, "h1", through(r))
		dst := netip.MustParseAddrPort("93.184.216.77:8080")
		for _, n := range tt.names {
			w.pins.Add(hostname.Name(n), dst.Addr(), time.Hour)
		}
		c, err := w.connect(context.Background(), dst)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		c.SetDeadline(time.Now().Add(10 * time.Second))
		io.WriteString(c, tt.says)
		got, err := bufio.NewReader(c).ReadString('\n')
		c.Close()
		if asked := r.proxy.Asked(); got != banner || len(asked) == 0 || asked[len(asked)-1] != tt.want {
			t.Errorf("%s: got %q %v; the proxy was asked for %v", name, got, err, asked)
		}
	}
}

// TestUnresolved: an address that stands for a name goes to the proxy by that
// name and never anywhere else, under the rules about names.
func TestUnresolved(t *testing.T) {
	stand := netip.MustParseAddrPort("198.18.128.0:443")
	r := &relayed{}
	for name, tt := range map[string]struct {
		change func(w *world)
		sni    string
		status int // 0 = no connection
		reason policy.Reason
	}{
		"by name":      {func(*world) {}, "good.test", 200, ""},
		"another name": {func(*world) {}, "evil.test", 0, ""},
		"denied name": {func(w *world) {
			w.cfg.Network.Rules = []policy.Rule{{Direction: policy.Egress, Target: policy.Target{Name: hostname.Exact("good.test")}}}
		}, "good.test", 0, policy.RuleDenied},
		"denied whatever": {func(w *world) {
			w.cfg.Network.Rules = []policy.Rule{{Direction: policy.Egress, Target: policy.Target{Group: policy.GroupPublic}}}
		}, "good.test", 0, policy.RuleDenied},
		"an allowed prefix is not meant": {func(w *world) {
			w.cfg.Network.Profile = policy.ProfileNone
			w.cfg.Network.Rules = []policy.Rule{{Allow: true, Direction: policy.Egress, Target: policy.Target{Prefix: netip.MustParsePrefix("0.0.0.0/0")}}}
		}, "good.test", 0, policy.AddressDenied},
		"a name that is not the proxy's": {func(w *world) { r.bypass = "good.test"; w.cfg.Egress = r.egress(w) }, "good.test", 200, ""},
	} {
		t.Run(name, func(t *testing.T) {
			*r = relayed{to: map[string]netip.AddrPort{}}
			w := newWorld(t, "h1", through(r), func(w *world) {
				w.cfg.Network.Own = []netip.Prefix{netip.MustParsePrefix("198.18.0.0/15")}
				w.cfg.Unresolved = func(a netip.Addr) (hostname.Name, bool) { return "good.test", a == stand.Addr() }
			}, tt.change)
			r.to["good.test:443"] = w.good.Addr()
			w.names[tt.sni+":443"] = stand
			a := w.get(w.client(), "https://"+tt.sni+"/ok", placeholder)
			if a.status != tt.status {
				t.Errorf("got %d %v", a.status, a.err)
			}
			if tt.reason != "" {
				w.expect(audit.Denied, tt.reason)
			}
			if tt.status == 200 && !strings.Contains(w.last(w.good, 1).Text(), value) {
				t.Error("the value did not arrive")
			}
			if len(w.dialed) != 0 {
				t.Errorf("%v was dialled", w.dialed)
			}
			for _, asked := range r.proxy.Asked() {
				if asked != "good.test:443" {
					t.Errorf("the proxy was asked for %s", asked)
				}
			}
		})
	}
}
