package main

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/cutoutdev/cutout/internal/testnet"
)

// The names in the demo's internet.
const (
	allowed = "api.example.test"    // may have the value
	other   = "other.example.test"  // a good server that may not
	broken  = "broken.example.test" // may have it, but nobody vouches for its certificate
)

// A world is the demo's internet.
type world struct {
	dir string
	key string

	ca     *testnet.CA
	api    *testnet.Upstream // allowed, TLS
	plain  *testnet.Upstream // allowed, without TLS
	other  *testnet.Upstream
	broken *testnet.Upstream
}

func newWorld(dir string) (*world, error) {
	w := &world{dir: dir, key: newKey()}
	var err error
	if w.ca, err = testnet.NewCA(); err != nil {
		return nil, err
	}
	if err := w.ca.WriteFile(w.caFile()); err != nil {
		return nil, err
	}
	good, err1 := w.ca.Cert(allowed)
	second, err2 := w.ca.Cert(other)
	bad, err3 := w.ca.SelfSigned(broken)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	for _, u := range []struct {
		at  **testnet.Upstream
		cfg testnet.UpstreamConfig
	}{
		{&w.api, testnet.UpstreamConfig{Cert: &good}},
		{&w.plain, testnet.UpstreamConfig{}},
		{&w.other, testnet.UpstreamConfig{Cert: &second}},
		{&w.broken, testnet.UpstreamConfig{Cert: &bad}},
	} {
		if *u.at, err = testnet.StartUpstream(u.cfg); err != nil {
			w.close()
			return nil, err
		}
	}
	return w, nil
}

func (w *world) close() {
	for _, u := range w.upstreams() {
		if u != nil {
			u.Close()
		}
	}
}

func (w *world) upstreams() []*testnet.Upstream {
	return []*testnet.Upstream{w.api, w.plain, w.other, w.broken}
}

func (w *world) caFile() string { return filepath.Join(w.dir, "ca.pem") }

// flags serve the names from the local servers. The guest gets the demo's CA
// as well: a connection that Cutout does not open is verified by the guest.
func (w *world) flags() []string {
	return []string{
		"--connect-to", fmt.Sprintf("%s:443=%s", allowed, w.api.Addr()),
		"--connect-to", fmt.Sprintf("%s:80=%s", allowed, w.plain.Addr()),
		"--connect-to", fmt.Sprintf("%s:443=%s", other, w.other.Addr()),
		"--connect-to", fmt.Sprintf("%s:443=%s", broken, w.broken.Addr()),
		"--tls-upstream-ca-cert", w.caFile(),
		"--copy", w.caFile() + ":/ca.pem",
	}
}
