package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cutoutdev/cutout/internal/keeper"
	"github.com/cutoutdev/cutout/internal/roots"
	"github.com/cutoutdev/cutout/internal/state"
)

// writeWorkloadFiles writes what the workload must know where the user wants
// it. The returned function removes it; if this process is killed, the sweep
// of place does.
func writeWorkloadFiles(o boundaryOptions, p plug, about keeper.Workload, place *state.Sandbox) (remove func(), err error) {
	var written []string
	remove = func() {
		for _, path := range written {
			os.Remove(path)
		}
	}
	write := func(path string, data []byte, perm os.FileMode) error {
		if err := state.WriteFile(path, data, perm); err != nil {
			return err
		}
		written = append(written, path)
		return place.Leave(path)
	}
	env := append(about.Env, variables(p, about)...)
	if o.CAFile != "" {
		path, err := filepath.Abs(o.CAFile)
		if err != nil {
			return remove, fmt.Errorf("find --ca-file: %w", err)
		}
		// Their host may have no roots, or others: the upstreams are
		// verified here.
		if err := write(path, append(keeper.Roots(), about.CA...), 0o644); err != nil {
			return remove, err
		}
		env = append(env, roots.Variables(path, path)...)
	}
	if o.EnvFile == "" {
		return remove, nil
	}
	return remove, write(o.EnvFile, []byte(strings.Join(env, "\n")+"\n"), 0o600)
}

// variables tell a workload how it reaches the boundary.
func variables(p plug, about keeper.Workload) []string {
	if l, ok := p.(*listenPlug); ok {
		return l.variables(about)
	}
	return []string{
		fmt.Sprint("CUTOUT_ADDRESS4=", about.Guest4), fmt.Sprint("CUTOUT_GATEWAY4=", about.Gateway4),
		fmt.Sprint("CUTOUT_ADDRESS6=", about.Guest6), fmt.Sprint("CUTOUT_GATEWAY6=", about.Gateway6),
		"CUTOUT_MAC=" + about.MAC, fmt.Sprint("CUTOUT_MTU=", about.MTU),
	}
}
