package keeper

import (
	"strings"
	"testing"

	"github.com/cutoutdev/cutout/internal/secret"
)

// TestShapePlaceholders: a secret without placeholder gets one that looks
// like its value; the error for a value that cannot be imitated shows nothing
// of it.
func TestShapePlaceholders(t *testing.T) {
	shape := func(value string) (*secret.Secret, error) {
		spec, values := testSpec(t, "KEY")
		spec.Secrets[0].Placeholder = ""
		values[0].Data = []byte(value)
		_, store, secrets, err := receive(t, spec, values)
		if err != nil {
			t.Fatal(err)
		}
		return secrets[0], shapePlaceholders(store, secrets)
	}
	s, err := shape("sk_live_0123456789abcdefABCDEF01")
	if err != nil || !strings.HasPrefix(s.Placeholder, "sk_live_") || len(s.Placeholder) != 32 {
		t.Errorf("got %q, %v", s.Placeholder, err)
	}
	_, err = shape("a phrase that nobody guesses")
	if f, ok := err.(*Failure); !ok || f.Hint == "" || strings.Contains(f.Text, "phrase") {
		t.Errorf("got %v", err)
	}
}
