//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/cutoutdev/cutout/bench/boundary"
	"github.com/cutoutdev/cutout/internal/testnet"
)

// Names of the steady guest's server and of the flood's.
const (
	apiName   = "api.example.test"
	floodName = "flood.example.test"
	floodPort = 9000
)

// Names of a boundary's files.
const (
	socketName = "vm.sock"
	caName     = "ca.pem"
)

// A world is a server, the two boundaries and the loads.
type world struct {
	api             *testnet.Upstream
	steady, flooded *boundary.Boundary
	flood           *load
	loops           [2]*load // in the place of the flood and of its keeper
	once            sync.Once
}

// newWorld makes one. It is closed when ctx ends, so that whatever waits for a
// part of it waits no longer.
func newWorld(ctx context.Context, cutout string) (w *world, err error) {
	w = new(world)
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	ca, err := testnet.NewCA()
	if err != nil {
		return nil, err
	}
	cert, err := ca.Cert(apiName)
	if err != nil {
		return nil, err
	}
	if w.api, err = testnet.StartUpstream(testnet.UpstreamConfig{Cert: &cert, HTTP1: true}); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "cutout-flood-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	roots := filepath.Join(dir, caName)
	if err := ca.WriteFile(roots); err != nil {
		return nil, err
	}
	if w.flood, err = startLoad(asFlood); err != nil {
		return nil, err
	}
	for i := range w.loops {
		if w.loops[i], err = startLoad(asLoop); err != nil {
			return nil, err
		}
	}
	said, err := w.flood.answer()
	if err != nil {
		return nil, err
	}
	for _, b := range []**boundary.Boundary{&w.steady, &w.flooded} {
		*b, err = boundary.Start(cutout, "--unix", "%DIR%/"+socketName, "--ca-file", "%DIR%/"+caName, "--tls-upstream-ca-cert", roots,
			"--connect-to", apiName+":443="+w.api.Addr().String(), "--connect-to", fmt.Sprintf("%s:%d=%s", floodName, floodPort, said.Server))
		if err != nil {
			return nil, err
		}
	}
	context.AfterFunc(ctx, w.close)
	return w, nil
}

func (w *world) close() { w.once.Do(w.end) }

func (w *world) end() {
	for _, l := range append(w.loops[:], w.flood) {
		if l != nil {
			l.end()
		}
	}
	for _, b := range []*boundary.Boundary{w.steady, w.flooded} {
		if b != nil {
			b.Close()
		}
	}
	if w.api != nil {
		w.api.Close()
	}
}
