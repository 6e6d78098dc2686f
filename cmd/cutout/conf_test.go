package main

import (
	"slices"
	"testing"

	"github.com/spf13/pflag"

	"github.com/cutoutdev/cutout/internal/config"
)

// TestEveryFlagIsAKey: what run takes a configuration takes, under the same
// name.
func TestEveryFlagIsAKey(t *testing.T) {
	other := map[string]string{"secret": "secrets", "no-net": "net", "no-tty": "tty"}
	not := []string{"conf", "interactive"} // the file itself, and a flag that does nothing
	keys := config.FileKeys()
	new(app).runCommand().Flags().VisitAll(func(f *pflag.Flag) {
		key := f.Name
		if k := other[key]; k != "" {
			key = k
		}
		if !slices.Contains(keys, key) && !slices.Contains(not, key) {
			t.Errorf("--%s has no key in a configuration: add it to config.File", f.Name)
		}
	})
}
