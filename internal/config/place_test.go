package config

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cutoutdev/cutout/internal/source/helper"
)

// bad are files with one mistake each, before which « stands.
// The key is what a row's name begins with.
var bad = map[string]string{
	"image":   "image: «[a]",
	"command": "command: [a, «{b: c}]",

	"secrets: no host":              "secrets:\n  «NOT_KNOWN:\n    source: env:A",
	"secrets: a known one's name":   "secrets:\n  A:\n    hosts: [a.example]\n  «GITHUB_TOKN:\n",
	"secrets: part of another":      "secrets:\n  API: {hosts: a.example, source: env:A}\n  «API_KEY: {hosts: a.example}",
	"secrets: no value":             "secrets:\n  «UNSET: {hosts: a.example}",
	"source: unknown":               "secrets:\n  A:\n    source: «fiel:x\n    hosts: [a.example]",
	"source: a value":               "secrets:\n  A: {source: «hunter2-swordfish, hosts: a.example}",
	"source: nothing behind it":     "secrets:\n  A: {source: «'env:', hosts: a.example}",
	"hosts: a pattern":              "secrets:\n  A:\n    hosts: [a.example, «good.*]",
	"hosts: a suffix":               "secrets:\n  A:\n    hosts:\n    - a.example\n    - «'*.com'",
	"hosts: any":                    "secrets:\n  A: {hosts: «'*'}",
	"hosts: a port":                 "secrets:\n  A: {hosts: [«'a.example:99999']}",
	"placeholder: too short":        "secrets:\n  A:\n    hosts: a.example\n    placeholder: «short",
	"placeholder: nearly shaped":    "secrets:\n  A: {hosts: a.example, placeholder: «shapd}",
	"placeholder: the same":         "secrets:\n  A: {hosts: a.example, placeholder: the-placeholder}\n  B: {hosts: a.example, source: env:A, placeholder: «the-placeholder}",
	"surface":                       "secrets:\n  A: {hosts: a.example, surface: [header, «cookie]}",
	"scope: a method":               "secrets:\n  A:\n    hosts: a.example\n    scope:\n    - GET /a\n    - «get /b",
	"scope: a path":                 "secrets:\n  A: {hosts: a.example, scope: «/a/../b}",
	"on-violation":                  "secrets:\n  A: {hosts: a.example}\non-violation: «blok",
	"on-violation: of a secret":     "secrets:\n  A: {hosts: a.example, on-violation: «'block,hald'}",
	"exclusive":                     "secrets:\n  A: {hosts: a.example, exclusive: «yes}",
	"allow-plain":                   "secrets:\n  A: {hosts: a.example, allow-plain: [a.example, «b.example]}",
	"allow-unverified":              "secrets:\n  A: {hosts: a.example, allow-unverified: «a.example}",
	"allow-any-host":                "secrets:\n  A: {hosts: a.example, «allow-any-host: true}",
	"allow-short":                   "secrets:\n  A: {hosts: a.example, allow-short: «1}",
	"scrub: unknown":                "scrub: [«a.example=strict]",
	"scrub: no host of a secret":    "scrub: «b.example=lax",
	"scrub: all":                    "scrub: «all",
	"tls-no-verify-upstream-for":    "tls-no-verify-upstream-for: [a.example, «'*.b.example']",
	"allow-shared-suffix":           "allow-shared-suffix: «'*.example.com'",
	"allow-shared-suffix: not used": "allow-shared-suffix: ['«*.github.io']",

	"env: a secret":            "secrets:\n  API_KEY: {hosts: a.example}\nenv:\n  B: 1\n  «API_KEY: 2",
	"workdir":                  "workdir: «src",
	"user":                     "user: «{a: b}",
	"memory":                   "memory: «lots",
	"memory: too much":         "cpus: 2\nmemory: «9999g",
	"cpus":                     "cpus: «1000",
	"volume":                   "volume: [/:/a:ro, «/:/b]",
	"volume: none there":       "volume: «/nowhere:/b:ro",
	"copy":                     "copy: [«{a: b}]",
	"timeout":                  "timeout: «soon",
	"tty":                      "tty: «1",
	"quiet":                    "quiet: «'true'",
	"net":                      "net: «publik",
	"net: with another":        "net: public\nnet-default: «deny",
	"net-rule":                 "net-rule:\n- allow@dns\n- «alow@10.0.0.1",
	"net-rule: a port":         "net-rule: [«'allow@10.0.0.1:tcp:0']",
	"net-default":              "net-default: «permit",
	"net-default-egress":       "net-default-egress: «permit",
	"net-default-ingress":      "net-default-ingress: «permit",
	"publish":                  "publish: ['8080:80', «'99999:80']",
	"publish: twice":           "publish: ['8080:80', «'127.0.0.1:8080:81']",
	"net-rate":                 "net-rate: [10m, «fast]",
	"egress-proxy":             "egress-proxy: «ftp://a.example",
	"egress-proxy-auth":        "egress-proxy: http://a.example\negress-proxy-auth: «user:password",
	"egress-proxy-auth: why":   "egress-proxy-auth: «env:A",
	"egress-proxy-bypass":      "egress-proxy: http://a.example\negress-proxy-bypass: [b.example, «'http://c.example']",
	"egress-proxy-dns":         "egress-proxy-dns: «true",
	"connect-to":               "connect-to: ['a.example:443=127.0.0.1:1', «a.example]",
	"dns-nameserver":           "dns-nameserver: [«'1.1.1.1:0']",
	"dns-only-allowed":         "dns-only-allowed: «sometimes",
	"tls-intercept":            "tls-intercept: «most",
	"tls-bypass":               "secrets:\n  API_KEY: {hosts: a.example}\ntls-bypass: [b.example, «a.example]",
	"tls-upstream-ca-cert":     "tls-upstream-ca-cert: «/nowhere.pem",
	"tls-upstream-ca-cert-for": "tls-upstream-ca-cert-for: ['«a.example']",
	"metrics":                  "metrics: «fast",
	"metrics: a name":          "metrics: «'prometheus.example:9464'",
	"otlp":                     "otlp: «'grpc://collector.example'",
	"otlp: a credential":       "otlp: «'https://me:secret@collector.example'",
	"otlp-headers":             "otlp: http://localhost:4318\notlp-headers: «x-api-key=1",
	"otlp-headers: for whom":   "otlp-headers: «'env:A'",
	"otlp-ca-cert":             "otlp: https://localhost:4318\notlp-ca-cert: «/nowhere.pem",
	"audit":                    "audit: «lax",
	"no-snapshot":              "no-snapshot: «'yes'",
	"weak-cage":                "weak-cage: «0",
}

// TestPlaces: E7. A mistake in what any key says has its line and column, one
// that the flags' own parser finds too.
func TestPlaces(t *testing.T) {
	without := FileKeys()
	for name, text := range bad {
		key, _, _ := strings.Cut(name, ":")
		without = slices.DeleteFunc(without, func(k string) bool { return k == key })
		before, after, _ := strings.Cut(text, "«")
		line := strings.Count(before, "\n") + 1
		column := len(before) - strings.LastIndexByte(before, '\n')
		if strings.HasSuffix(before, "'") { // the mark is inside of the quotes
			column--
		}
		path := filepath.Join(t.TempDir(), "cutout.yaml")
		if err := os.WriteFile(path, []byte(before+after+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		err := buildFile(t, path)
		want := path + ":" + strconv.Itoa(line) + ":" + strconv.Itoa(column) + ": "
		if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Count(err.Error(), path) != 1 {
			t.Errorf("%s: got %v, want %s", name, err, want)
		}
	}
	if len(without) > 0 {
		t.Errorf("there is no mistake for %v", without)
	}
}

// buildFile is what cutout run makes of a file.
func buildFile(t *testing.T, path string) error {
	f, _, places, err := LoadFile(path)
	if err != nil {
		return err
	}
	var r Run
	f.Merge(&r, func(string) bool { return false })
	lookup := func(name string) (string, bool) { return "value-of-the-secret-1", name != "UNSET" }
	_, err = f.Deadline()
	if err == nil {
		_, err = r.Build(t.Context(), lookup, helper.FromEnv(lookup))
	}
	return places.Locate(err)
}

// TestNoPlace: what a flag says has no place in the file, and an error that is
// no text's stays as it is.
func TestNoPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cutout.yaml")
	if err := os.WriteFile(path, []byte("memory: 1g\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, places, err := LoadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{nil, errors.New("another"), In("memory", "lots", errors.New("another"))} {
		if got := places.Locate(err); got != err {
			t.Errorf("%v became %v", err, got)
		}
	}
}
