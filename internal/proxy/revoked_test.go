package proxy

import (
	"crypto/tls"
	"slices"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/testnet"
)

// A certificate that its issuer has revoked proves nothing, one that demands a
// staple nothing without it. A13.
func TestRevoked(t *testing.T) {
	now := time.Now()
	says := func(status int) ocsp.Response {
		return ocsp.Response{Status: status, ThisUpdate: now.Add(-time.Hour), NextUpdate: now.Add(time.Hour), RevokedAt: now.Add(-time.Hour)}
	}
	stale := func(r ocsp.Response) ocsp.Response {
		r.ThisUpdate, r.NextUpdate = now.Add(-2*time.Hour), now.Add(-time.Hour)
		return r
	}
	early := says(ocsp.Good)
	early.ThisUpdate = now.Add(30 * time.Minute)
	const ca, itself, delegate, stranger = "", "itself", "delegate", "stranger"
	for name, tt := range map[string]struct {
		demands bool
		staple  *ocsp.Response
		by      string
		refused bool
	}{
		"none":                     {false, nil, ca, false},
		"good":                     {false, new(says(ocsp.Good)), ca, false},
		"revoked":                  {false, new(says(ocsp.Revoked)), ca, true},
		"revoked, old news":        {false, new(stale(says(ocsp.Revoked))), ca, true},
		"revoked, by a delegate":   {false, new(says(ocsp.Revoked)), delegate, true},
		"unknown":                  {false, new(says(ocsp.Unknown)), ca, false},
		"revoked, by a stranger":   {false, new(says(ocsp.Revoked)), stranger, false},
		"demanded, none":           {true, nil, ca, true},
		"demanded, good":           {true, new(says(ocsp.Good)), ca, false},
		"demanded, by a delegate":  {true, new(says(ocsp.Good)), delegate, false},
		"demanded, unknown":        {true, new(says(ocsp.Unknown)), ca, true},
		"demanded, stale":          {true, new(stale(says(ocsp.Good))), ca, true},
		"demanded, too early":      {true, &early, ca, true},
		"demanded, by itself":      {true, new(says(ocsp.Good)), itself, true},
		"demanded, by a stranger":  {true, new(says(ocsp.Good)), stranger, true},
		"demanded and revoked":     {true, new(says(ocsp.Revoked)), ca, true},
		"demanded, no end of time": {true, &ocsp.Response{Status: ocsp.Good, ThisUpdate: now.Add(-time.Hour)}, ca, false},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			for _, exempt := range []bool{false, true} {
				w := newWorld(t, "h1", func(w *world) {
					if exempt {
						w.cfg.NoVerify = []hostname.Name{"good.test"}
					}
				})
				cert := must(w.ca.Issue(testnet.Leaf{Names: []string{"good.test"}, MustStaple: tt.demands}))
				if tt.staple != nil {
					var by *tls.Certificate
					switch tt.by {
					case itself:
						by = &cert
					case delegate:
						by = new(must(w.ca.Issue(testnet.Leaf{SignsOCSP: true})))
					case stranger:
						by = new(must(must(testnet.NewCA()).Issue(testnet.Leaf{SignsOCSP: true})))
					}
					cert = must(w.ca.Staple(cert, *tt.staple, by))
				}
				u := w.start(testnet.UpstreamConfig{Cert: &cert, TLS: &tls.Config{MaxVersion: version}})
				w.to[goodAddr] = u.Addr()
				a := w.get(w.client(), "https://good.test/ok", placeholder)
				got := a.status == 403
				if got != tt.refused || !got && a.status != 200 {
					t.Errorf("%s, version %x, exempt %t: %d %s %v", name, version, exempt, a.status, a.body, a.err)
				}
				if got {
					w.refused(a, 403, policy.UpstreamUnverified)
				}
				if sent := slices.ContainsFunc(u.Requests(), func(r testnet.Request) bool { return r.Header.Get("Authorization") != "" }); sent == tt.refused {
					t.Errorf("%s, version %x, exempt %t: the value was sent: %t", name, version, exempt, sent)
				}
			}
		}
	}
}
