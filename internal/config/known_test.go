package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cutoutdev/cutout/internal/keeper"
	"github.com/cutoutdev/cutout/internal/secret"
	"github.com/cutoutdev/cutout/internal/source/helper"
)

// known1 is the first secret that rules make, without values.
func known1(t *testing.T, r Rules) (secret.Secret, error) {
	t.Helper()
	var spec keeper.Spec
	_, err := r.bind(t.Context(), &spec, helper.FromEnv(func(string) (string, bool) { return "", false }), false)
	if err == nil {
		err = r.apply(&spec)
	}
	if err != nil {
		return secret.Secret{}, err
	}
	return spec.Secrets[0], nil
}

// TestKnown: every row is what a user could have written, goes to whole names
// on 443 only, and says which page of the service's says so.
func TestKnown(t *testing.T) {
	list, err := parseKnown(knownText)
	if err != nil {
		t.Fatal(err)
	}
	if len(list) < 20 {
		t.Fatalf("found %d rows", len(list))
	}
	for _, k := range list {
		written := Rules{
			Secrets:  []string{k.Name + "@" + strings.Join(k.Hosts, ",")},
			Surfaces: []string{k.Name + "=" + strings.Join(k.Surfaces, ",")},
		}
		if k.Shaped {
			written.Placeholders = []string{k.Name + "=shaped"}
		}
		want, err := known1(t, written)
		if err != nil {
			t.Errorf("%s: %v", k.Name, err)
			continue
		}
		got, err := known1(t, Rules{Secrets: []string{k.Name}})
		if err != nil {
			t.Errorf("%s: %v", k.Name, err)
			continue
		}
		if d := cmp.Diff(want, got, cmp.Comparer(comparePatterns), cmp.AllowUnexported(secret.Value{})); d != "" {
			t.Errorf("%s alone is not what its row says: %s", k.Name, d)
		}
		for _, h := range got.Hosts {
			if h.Pattern.Wildcard() || h.Port != 443 {
				t.Errorf("%s: %s is more than one server", k.Name, h.Pattern)
			}
		}
		if shown(k.Name) != k.Name {
			t.Errorf("the name %s could be a value", k.Name)
		}
	}
}

// TestKnownRefuses: the catalogue is read as flags are, and what a row may
// not do is no row.
func TestKnownRefuses(t *testing.T) {
	const page = " https://example.com/"
	for row, want := range map[string]string{
		"T *.github.io - -" + page:                            "different owners",
		"T *.com - -" + page:                                  "different owners",
		"T * - -" + page:                                      "every server",
		"T a.example:https - -" + page:                        "invalid port",
		"T a.example cookies -" + page:                        "unknown surface",
		"T a.example header:Host -" + page:                    "never go into",
		"T a.example - sk-0000000000" + page:                  "shaped or -",
		"T a.example - - http://example.com/":                 "no page",
		"T a.example - -":                                     "5 columns",
		"T U a.example - -" + page:                            "5 columns",
		"1T a.example - -" + page:                             "name of a variable",
		"T a.example - -" + page + "\nT b.example - -" + page: "two rows",
	} {
		if _, err := parseKnown(row); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: want an error with %q, got %v", row, want, err)
		}
	}
}

// TestKnownIsOverruled: what the user writes wins over the catalogue.
func TestKnownIsOverruled(t *testing.T) {
	got, err := known1(t, Rules{
		Secrets: []string{"GITHUB_TOKEN@api.example.com"},
	})
	if err != nil || len(got.Hosts) != 1 || got.Hosts[0].Pattern != pattern(t, "api.example.com") || got.Surfaces != nil || got.Placeholder != "$MSB_GITHUB_TOKEN" {
		t.Errorf("named hosts do not stand alone: %+v, %v", got, err)
	}
	got, err = known1(t, Rules{
		Secrets: []string{"GEMINI_API_KEY=file:~/key"}, Surfaces: []string{"GEMINI_API_KEY=header"}, Placeholders: []string{"GEMINI_API_KEY=test-key-0000"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(secret.Surfaces{Header: true}, got.Allowed()); d != "" || got.Placeholder != "test-key-0000" {
		t.Errorf("--surface adds to the catalogue, or --placeholder does not count: %s %q", d, got.Placeholder)
	}
	for _, in := range []string{"GITHUB_TOKEN@", "GITHUB_TOKN", "GITHUB_TOKEN=ghp_0123456789"} {
		_, err := known1(t, Rules{Secrets: []string{in}})
		if err == nil || strings.Contains(err.Error()+Hint(err), "ghp_") {
			t.Errorf("%s: got %v", in, err)
		}
		if in == "GITHUB_TOKN" && !strings.Contains(Hint(err), "did you mean GITHUB_TOKEN?") {
			t.Errorf("%s: the hint is %q", in, Hint(err))
		}
	}
}
