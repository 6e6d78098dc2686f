package config

import (
	"reflect"
	"strings"
	"testing"

	"github.com/cutoutdev/cutout/internal/source/helper"
)

// Wherever a shell puts a value, no error may repeat it: errors end up in
// logs that many people read.
func TestErrorsDoNotRepeatValues(t *testing.T) {
	const value = "ghp_0123456789abcdefABCDEF"
	env := map[string]string{"API_KEY": value}
	lookup := func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	for name, r := range map[string]Run{
		"--connect-to":                {Boundary: Boundary{ConnectTo: []string{value}}},
		"--connect-to port":           {Boundary: Boundary{ConnectTo: []string{"a.example:443=" + value}}},
		"--dns-nameserver":            {Boundary: Boundary{Nameservers: []string{value}}},
		"--tls-intercept":             {Boundary: Boundary{Intercept: value}},
		"--audit":                     {Boundary: Boundary{Audit: value}},
		"--tls-bypass":                {Boundary: Boundary{Bypass: []string{value}}},
		"--tls-upstream-ca-cert":      {Boundary: Boundary{UpstreamCAs: []string{value}}},
		"--tls-upstream-ca-cert-for":  {Boundary: Boundary{UpstreamCAFor: []string{value}}},
		"--tls-upstream-ca-cert-for=": {Boundary: Boundary{UpstreamCAFor: []string{"a.example=" + value}}},
		"-m":                          {Memory: value},
		"-v":                          {Volumes: []string{value}},
		"-v source":                   {Volumes: []string{value + ":/x:ro"}},
		"-w":                          {Dir: value},
		"-u":                          {User: value},
		"-e":                          {Env: []string{"A=" + value}},
		"-e without name":             {Env: []string{"=" + value}},
		"-e as a name":                {Env: []string{"A_" + value + "=1"}},
		"-e missing":                  {Env: []string{value}},
		"--on-violation":              {Boundary: Boundary{Rules: Rules{OnViolation: []string{value}}}},
		"--on-violation action":       {Boundary: Boundary{Rules: Rules{OnViolation: []string{"API_KEY=" + value}}}},
		"--on-violation name":         {Boundary: Boundary{Rules: Rules{OnViolation: []string{value + "=block"}}}},
		"--placeholder":               {Boundary: Boundary{Rules: Rules{Placeholders: []string{"API_KEY=" + value}}}},
		"--placeholder name":          {Boundary: Boundary{Rules: Rules{Placeholders: []string{value + "=some-placeholder"}}}},
		"another --secret's host":     {Boundary: Boundary{Rules: Rules{Secrets: []string{"B@" + value}}}},
		"a --secret's port":           {Boundary: Boundary{Rules: Rules{Secrets: []string{"API_KEY@a.example:" + value}}}},
		"a --secret's pattern":        {Boundary: Boundary{Rules: Rules{Secrets: []string{"API_KEY@*." + value + "_.*"}}}},
		"in place of a --secret":      {Boundary: Boundary{Rules: Rules{Secrets: []string{value}}}},
		"as a --secret's name":        {Boundary: Boundary{Rules: Rules{Secrets: []string{value + "@a.example"}}}},
		"an inline value's beginning": {Boundary: Boundary{Rules: Rules{Secrets: []string{value + "==@a.example"}}}},
		"the command":                 {Boundary: Boundary{Args: []string{"echo", value}}},
		"another text":                {Boundary: Boundary{Also: []Text{{Where: "the image's name", Text: value}}}, Memory: value},
	} {
		t.Run(name, func(t *testing.T) {
			r.Secrets = append(r.Secrets, "API_KEY@a.example")
			_, err := r.Build(t.Context(), lookup, helper.FromEnv(lookup))
			if err == nil {
				t.Fatal("accepted")
			}
			if text := err.Error() + " " + Hint(err); strings.Contains(text, value) {
				t.Errorf("repeats the value: %s", text)
			}
		})
	}
}

// TestEveryRuleIsSearched: a value in any flag about secrets is found before
// that flag is parsed, also in a flag that is added later.
func TestEveryRuleIsSearched(t *testing.T) {
	const value = "ghp_0123456789abcdefABCDEF"
	lookup := func(name string) (string, bool) { return value, name == "API_KEY" }
	fields := reflect.TypeFor[Rules]()
	for i := range fields.NumField() {
		r := Rules{Secrets: []string{"API_KEY@a.example"}}
		list := reflect.ValueOf(&r).Elem().Field(i).Addr().Interface().(*[]string)
		for _, text := range []string{value, "API_KEY=" + value, "API_KEY@" + value + ".example"} {
			*list = append([]string{"API_KEY@a.example"}, text)
			if fields.Field(i).Name != "Secrets" {
				*list = []string{text}
			}
			for _, check := range []func() error{
				func() error {
					_, err := Run{Boundary: Boundary{Rules: r}}.Build(t.Context(), lookup, helper.FromEnv(lookup))
					return err
				},
				func() error { _, err := r.Check(t.Context(), lookup); return err },
			} {
				if err := check(); err == nil || !strings.Contains(err.Error(), "the value of API_KEY stands in") {
					t.Errorf("%s %q: got %v", fields.Field(i).Name, text, err)
				}
			}
		}
	}
}
