package config

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cutoutdev/cutout/internal/egress"
	"github.com/cutoutdev/cutout/internal/keeper"
	"github.com/cutoutdev/cutout/internal/source/helper"
)

func variables(env map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := env[name]; return v, ok }
}

// TestEgress: what flags and the caller's variables say about a proxy. Flags
// win, and who takes a variable is told.
func TestEgress(t *testing.T) {
	proxy := func(host string, port uint16) *egress.Spec {
		return &egress.Spec{Scheme: egress.HTTP, Host: host, Port: port}
	}
	with := func(s *egress.Spec, change func(*egress.Spec)) *egress.Spec { change(s); return s }
	for name, tt := range map[string]struct {
		flags  Egress
		env    map[string]string
		want   *egress.Spec
		notice string
	}{
		"nothing":      {Egress{}, nil, nil, ""},
		"a flag":       {Egress{Proxy: "http://p.example:3128"}, nil, proxy("p.example", 3128), ""},
		"a variable":   {Egress{}, map[string]string{"HTTPS_PROXY": "http://p.example:3128"}, proxy("p.example", 3128), "your variable HTTPS_PROXY"},
		"lower case":   {Egress{}, map[string]string{"https_proxy": "p.example:3128"}, proxy("p.example", 3128), "your variable https_proxy"},
		"for all":      {Egress{}, map[string]string{"ALL_PROXY": "socks5h://p.example"}, &egress.Spec{Scheme: egress.SOCKS, Host: "p.example", Port: 1080}, "ALL_PROXY"},
		"not for http": {Egress{}, map[string]string{"HTTP_PROXY": "http://p.example"}, nil, ""},
		"empty":        {Egress{}, map[string]string{"HTTPS_PROXY": ""}, nil, ""},
		"exceptions": {
			Egress{},
			map[string]string{"HTTPS_PROXY": "http://p.example", "NO_PROXY": "a.example,10.0.0.0/8"},
			with(proxy("p.example", 80), func(s *egress.Spec) { s.Bypass = "a.example,10.0.0.0/8" }), "but for the hosts of NO_PROXY",
		},
		"other exceptions": {
			Egress{Bypass: []string{"b.example"}},
			map[string]string{"HTTPS_PROXY": "http://p.example", "NO_PROXY": "a.example"},
			with(proxy("p.example", 80), func(s *egress.Spec) { s.Bypass = "b.example" }), "HTTPS_PROXY",
		},
		"a flag wins":     {Egress{Proxy: "http://q.example"}, map[string]string{"HTTPS_PROXY": "http://p.example", "NO_PROXY": "a.example"}, proxy("q.example", 80), ""},
		"none, by a flag": {Egress{Proxy: "none"}, map[string]string{"HTTPS_PROXY": "http://p.example"}, nil, ""},
		"all of it": {
			Egress{Proxy: "https://q.example", Auth: "file:/x", Bypass: []string{"a", "b"}, Names: true},
			nil,
			&egress.Spec{Scheme: egress.HTTPS, Host: "q.example", Port: 443, Bypass: "a,b", Login: true, Names: true}, "",
		},
	} {
		notice := tt.flags.Environment(variables(tt.env))
		var net keeper.Net
		err := tt.flags.apply(&net)
		if diff := cmp.Diff(tt.want, net.Egress); err != nil || diff != "" {
			t.Errorf("%s: %v %s", name, err, diff)
		}
		if (notice == "") != (tt.notice == "") || !strings.Contains(notice, tt.notice) {
			t.Errorf("%s: said %q", name, notice)
		}
	}
}

// TestEgressRefused: no error repeats a credential, and each says what to do.
func TestEgressRefused(t *testing.T) {
	const password = "hunter2-s3cret"
	for name, tt := range map[string]struct {
		flags Egress
		env   map[string]string
		want  string
	}{
		"a password":               {Egress{Proxy: "http://me:" + password + "@p.example"}, nil, "--egress-proxy holds a credential"},
		"a password in a variable": {Egress{}, map[string]string{"HTTPS_PROXY": "http://me:" + password + "@p.example"}, "your variable HTTPS_PROXY holds a credential"},
		"a password, malformed":    {Egress{Proxy: "http://me:" + password + "%@p.example"}, nil, "--egress-proxy names no proxy"},
		"another protocol":         {Egress{Proxy: "ftp://p.example"}, nil, "names no proxy"},
		"an inline credential":     {Egress{Proxy: "http://p.example", Auth: "me:" + password}, nil, "--egress-proxy-auth does not say where"},
		"no reference":             {Egress{Proxy: "http://p.example", Auth: "file:"}, nil, "--egress-proxy-auth does not say where"},
		"an unset variable":        {Egress{Proxy: "http://p.example", Auth: "env:NO_SUCH_VARIABLE"}, nil, "NO_SUCH_VARIABLE is not set"},
		"a credential for nobody":  {Egress{Auth: "env:X"}, nil, "--egress-proxy-auth without a proxy"},
		"exceptions from nothing":  {Egress{Proxy: "none", Bypass: []string{"a"}}, nil, "--egress-proxy-bypass without a proxy"},
		"names for nobody":         {Egress{Names: true}, nil, "--egress-proxy-dns without a proxy"},
		"a URL as an exception":    {Egress{Proxy: "http://p.example", Bypass: []string{"https://me:" + password + "@a"}}, nil, "one of its hosts is none"},
	} {
		tt.flags.Environment(variables(tt.env))
		values := helper.FromEnv(variables(nil))
		_, err := Boundary{Egress: tt.flags}.Build(context.Background(), values)
		values.Close()
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error()+Hint(err), password) || Hint(err) == "" {
			t.Errorf("%s: %v (%s)", name, err, Hint(err))
		}
	}
}

// TestEgressCredentialIsSearched: the proxy's credential may stand in nothing
// that the user hands over, like any other value.
func TestEgressCredentialIsSearched(t *testing.T) {
	env := variables(map[string]string{"LOGIN": "me:hunter2-s3cret"})
	build := func(args ...string) error {
		values := helper.FromEnv(env)
		defer values.Close()
		_, err := Boundary{Egress: Egress{Proxy: "http://p.example", Auth: "env:LOGIN"}, Args: args}.Build(context.Background(), values)
		return err
	}
	if err := build("true"); err != nil {
		t.Error(err)
	}
	if err := build("curl", "--proxy-user", "me:hunter2-s3cret"); err == nil || !strings.Contains(err.Error(), "--egress-proxy-auth stands in the command") {
		t.Error(err)
	}
}
