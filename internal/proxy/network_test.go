package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"net/netip"
	"testing"
	"time"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/conntrack"
	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/testnet"
)

func allowName(name string) policy.Rule {
	return policy.Rule{Allow: true, Direction: policy.Egress, Target: policy.Target{Name: must(hostname.ParsePattern(name))}, Protocol: policy.TCP}
}

// TestNameRuleNeedsServerName: two names live at one address, and a rule opens
// it for one of them. Only that one's connections pass.
func TestNameRuleNeedsServerName(t *testing.T) {
	w := newWorld(t, "h1", func(w *world) {
		w.cfg.Network.Profile = policy.ProfileNone
		w.cfg.Network.Rules = []policy.Rule{allowName("evil.test")}
	})
	w.pins.Add("other.test", evilAddr.Addr(), time.Hour)
	handshake := func(name string) error {
		c := must(w.connect(context.Background(), evilAddr))
		cfg := w.guestTLS()
		cfg.ServerName, cfg.InsecureSkipVerify = name, true
		c.SetDeadline(time.Now().Add(20 * time.Second))
		return tls.Client(c, cfg).Handshake()
	}
	if err := handshake("evil.test"); err != nil {
		t.Errorf("the allowed name: %v", err)
	}
	if err := handshake("other.test"); err == nil {
		t.Error("another name at its address passes")
	}
	if e := w.expect(audit.Denied, policy.AddressDenied); e.Host != "other.test" || e.Rule != "profile none" {
		t.Errorf("event is %+v", e)
	}
}

// TestRuleAtSYN: what no rule opens is refused and not dialled, and the event
// names what decided.
func TestRuleAtSYN(t *testing.T) {
	w := newWorld(t, "h1", func(w *world) {
		w.cfg.Network.Rules = []policy.Rule{{Direction: policy.Egress, Target: policy.Target{Prefix: netip.PrefixFrom(evilAddr.Addr(), 32)}}}
	})
	if _, err := w.connect(context.Background(), evilAddr); err != errRefused {
		t.Errorf("connect: %v", err)
	}
	if w.wasDialed(evilAddr) {
		t.Error("was dialled")
	}
	if e := w.expect(audit.Denied, policy.RuleDenied); e.Rule != "deny@93.184.216.66" {
		t.Errorf("event is %+v", e)
	}
}

// TestHostLoopback: the name of this machine's loopback is judged as loopback
// is, port by port.
func TestHostLoopback(t *testing.T) {
	raw := must(testnet.StartRaw(testnet.RawConfig{Banner: "hello\r\n"}))
	t.Cleanup(func() { raw.Close() })
	port := raw.Addr().Port()
	synthetic := netip.AddrPortFrom(netip.MustParseAddr("198.18.255.254"), port)
	start := func(rules ...policy.Rule) *world {
		return newWorld(t, "h1", func(w *world) {
			w.cfg.Network.Rules = rules
			w.to[raw.Addr()] = raw.Addr()
			w.cfg.Host = func(dst netip.AddrPort) (netip.AddrPort, bool) {
				return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), dst.Port()), dst.Addr() == synthetic.Addr()
			}
		})
	}
	w := start()
	if _, err := w.connect(context.Background(), synthetic); err != errRefused {
		t.Errorf("without a rule: %v", err)
	}
	if e := w.expect(audit.Denied, policy.AddressDenied); e.Host != string(policy.HostName) {
		t.Errorf("event is %+v", e)
	}
	for name, target := range map[string]policy.Target{
		"group": {Group: policy.GroupHost}, "name": {Name: hostname.Exact(policy.HostName)}, "address": {Prefix: netip.MustParsePrefix("127.0.0.1/32")},
	} {
		w := start(policy.Rule{Allow: true, Direction: policy.Egress, Target: target, Protocol: policy.TCP, Ports: []policy.Ports{{First: port, Last: port}}})
		if line := firstLine(t, w, synthetic); line != "hello\r\n" {
			t.Errorf("%s: read %q", name, line)
		}
		if _, err := w.connect(context.Background(), netip.AddrPortFrom(synthetic.Addr(), port^1)); err != errRefused {
			t.Errorf("%s, another port: %v", name, err)
		}
	}
}

func firstLine(t *testing.T, w *world, dst netip.AddrPort) string {
	t.Helper()
	c, err := w.connect(context.Background(), dst)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(20 * time.Second))
	line, _ := bufio.NewReader(c).ReadString('\n')
	return line
}

// What passes is shown as long as it lasts, with the name that was asked for.
func TestConns(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		var table conntrack.Table
		w := newWorld(t, protocol, func(w *world) { w.cfg.Conns = &table })
		client := w.client()
		if a := w.get(client, "https://good.test/echo", placeholder); a.status != 200 {
			t.Fatalf("answer is %d %s %v", a.status, a.body, a.err)
		}
		all := table.Flows()
		if len(all) != 1 {
			t.Fatalf("flows: %+v", all)
		}
		f := all[0]
		if f.Dst != goodAddr || f.Name != "good.test" || f.State != conntrack.Intercepted || f.Rule != "profile public" || f.In < 100 || f.Out < 100 {
			t.Errorf("flow: %+v", f)
		}
		client.CloseIdleConnections()
		for deadline := time.Now().Add(10 * time.Second); len(table.Flows()) > 0; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("still there: %+v", table.Flows())
			}
		}
	})
}
