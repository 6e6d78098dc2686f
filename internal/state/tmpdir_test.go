package state

import (
	"path/filepath"
	"strings"
	"testing"
)

// The keeper works in another directory, and a socket's path is short:
// TMPDIR must not decide whether a sandbox starts.
func TestRuntimeWithStrangeTMPDIR(t *testing.T) {
	for _, tmp := range []string{"rel", "", "/" + strings.Repeat("long/", 30)} {
		for _, env := range []map[string]string{
			{"HOME": "/home/u"},
			{"CUTOUT_HOME": "/" + strings.Repeat("deep/", 30)},
		} {
			h, err := locate(func(name string) string { return env[name] }, 1000, tmp)
			if err != nil {
				t.Fatal(err)
			}
			if !filepath.IsAbs(h.Runtime) || len(h.Runtime) > maxSocketDir {
				t.Errorf("TMPDIR=%q: %s", tmp, h.Runtime)
			}
		}
	}
}
