package config

import (
	"strings"
	"testing"
)

// TestLater: what would be promised and not kept is refused.
func TestLater(t *testing.T) {
	lookup := func(string) (string, bool) { return "value-of-tok-0001", true }
	for name, r := range map[string]Rules{
		"scrub": {Scrub: []string{"off"}},
	} {
		r.Secrets = []string{"TOK@a.example"}
		for _, check := range []func() error{
			func() error { _, _, err := Run{Rules: r}.Build(lookup); return err },
			func() error { _, err := r.Check(lookup); return err },
		} {
			if err := check(); err == nil || !strings.Contains(err.Error(), "is not supported yet") || Hint(err) == "" {
				t.Errorf("%s: got %v", name, err)
			}
		}
	}
}
