package proxy

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/dns"
	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/testnet"
)

// TestDNSOverTLS: the resolver that the guest chose is never spoken to. Where
// every TLS connection is opened the sandbox's own answers in its place, and
// its answers are pins; else, and where it cannot, the guest is refused.
func TestDNSOverTLS(t *testing.T) {
	answer := netip.MustParseAddr("93.184.216.77")
	zone := must(testnet.StartDNS(map[string]testnet.Record{"looked-up.test": {Addrs: []netip.Addr{answer}}}))
	defer zone.Close()
	for name, tt := range map[string]struct {
		dst        string
		sni        string // "" = none; "clear" = no TLS
		change     func(w *world)
		answered   bool
		refusedSYN bool
		reason     policy.Reason
	}{
		"opened":           {"93.184.216.53:853", "dns.test", func(*world) {}, true, false, ""},
		"auto":             {"93.184.216.53:853", "dns.test", func(w *world) { w.cfg.Intercept = Auto }, false, true, policy.ProtocolDenied},
		"off":              {"93.184.216.53:853", "dns.test", func(w *world) { w.cfg.Intercept = Off }, false, true, policy.ProtocolDenied},
		"nobody to answer": {"93.184.216.53:853", "dns.test", func(w *world) { w.cfg.DNS = nil }, false, true, policy.ProtocolDenied},
		"a denied address": {"10.0.0.53:853", "dns.test", func(*world) {}, false, true, policy.AddressDenied},
		"a denied name": {"93.184.216.53:853", "dns.test", func(w *world) {
			w.cfg.Network.Rules = []policy.Rule{{Direction: policy.Egress, Target: policy.Target{Group: policy.GroupAny}, Protocol: policy.TCP}}
		}, false, true, policy.RuleDenied},
		"without a name": {"93.184.216.53:853", "", func(*world) {}, false, false, policy.ProtocolDenied},
		"in clear":       {"93.184.216.53:853", "clear", func(*world) {}, false, false, policy.ProtocolDenied},
		"not opened": {"93.184.216.53:853", "dns.test", func(w *world) {
			w.cfg.Bypass = []hostname.Pattern{hostname.Exact("dns.test")}
		}, false, false, policy.ProtocolDenied},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "h1", func(w *world) {
				w.cfg.Intercept = All
				w.cfg.DNS = &dns.Interceptor{Resolvers: []netip.AddrPort{zone.Addr()}, Pins: w.pins, Network: w.cfg.Network}
			}, tt.change)
			raw, err := w.connect(context.Background(), netip.MustParseAddrPort(tt.dst))
			if (err == errRefused) != tt.refusedSYN {
				t.Fatalf("connect: %v", err)
			}
			if err == nil {
				raw.SetDeadline(time.Now().Add(10 * time.Second))
				got, err := lookUp(w, raw, tt.sni)
				if (err == nil) != tt.answered || tt.answered && got != answer.String() {
					t.Errorf("answered with %q, %v", got, err)
				}
			}
			if tt.reason != "" {
				w.expect(audit.Denied, tt.reason)
			}
			if w.pins.Pinned("looked-up.test", answer) != tt.answered {
				t.Error("pinned or not")
			}
			if len(w.dialed) != 0 {
				t.Errorf("%v was dialled", w.dialed)
			}
		})
	}
}

// lookUp asks for looked-up.test over c.
func lookUp(w *world, c net.Conn, sni string) (string, error) {
	if sni != "clear" {
		cfg := &tls.Config{RootCAs: w.roots(), ServerName: sni, NextProtos: []string{"dot"}}
		if sni == "" {
			cfg.InsecureSkipVerify = true
		}
		c = tls.Client(c, cfg)
	}
	conn := &mdns.Conn{Conn: c}
	if err := conn.WriteMsg(new(mdns.Msg).SetQuestion("looked-up.test.", mdns.TypeA)); err != nil {
		return "", err
	}
	m, err := conn.ReadMsg()
	if err != nil {
		return "", err
	}
	if len(m.Answer) != 1 {
		return "", io.ErrUnexpectedEOF
	}
	a, _ := m.Answer[0].(*mdns.A)
	return a.A.String(), nil
}
