package boundary

import (
	"fmt"
	"net"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/cutoutdev/cutout/internal/config"
	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/proxy"
	"github.com/cutoutdev/cutout/internal/secret"
)

// translated are the fields of the proxy's configuration for which there are
// flags, or, for SpoolDir, which a keeper always sets.
var translated = []string{"Intercept", "NoVerify", "OnViolation", "SpoolDir"}

// flags say to cutout boundary what a test has changed. What cannot be said
// fails the test.
func (b *Boundary) flags(before proxy.Config) []string {
	old, now := reflect.ValueOf(before), reflect.ValueOf(b.Config)
	for i := range now.NumField() {
		if name := now.Type().Field(i).Name; !slices.Contains(translated, name) && changed(old.Field(i), now.Field(i)) {
			b.T.Fatalf("%s was changed, for which there is no flag", name)
		}
	}
	var out []string
	add := func(flag, form string, args ...any) { out = append(out, "--"+flag, fmt.Sprintf(form, args...)) }
	if b.Config.Intercept == proxy.All {
		add("tls-intercept", "all")
	}
	for _, n := range b.Config.NoVerify {
		add("tls-no-verify-upstream-for", "%s", n)
	}
	if v := b.Config.OnViolation; v.Action != secret.Default {
		add("on-violation", "%s", v.Action)
		_, read := Must2(config.ParseViolation(out[len(out)-1]))
		b.same("--on-violation", read, v)
	}
	for _, s := range b.Secrets {
		b.secretFlags(s, add)
	}
	add("tls-upstream-ca-cert", "%s", filepath.Join(b.process.dir, "ca.pem"))
	add("dns-nameserver", "%s", nameserver)
	return out
}

// secretFlags are those of one secret, read again to see that they say it.
func (b *Boundary) secretFlags(s *secret.Secret, add func(flag, form string, args ...any)) {
	read := secret.Secret{Name: s.Name, Value: s.Value, Expires: s.Expires, State: s.State, Short: s.Short}
	text := s.Name + "@" + hostWords(s.Hosts)
	add("secret", "%s", text)
	read.Hosts = Must(config.ParseSecret(text)).Hosts
	text = s.Name + "=" + s.Placeholder
	add("placeholder", "%s", text)
	_, read.Placeholder = Must2(config.ParsePlaceholder(text))
	if s.Surfaces != nil {
		text = s.Name + "=" + surfaceWords(*s.Surfaces)
		add("surface", "%s", text)
		_, list := Must2(config.ParseSurfaces(text))
		read.Surfaces = &list
	}
	for _, x := range s.Scopes {
		text = fmt.Sprintf("%s=%s %s", s.Name, x.Method, x.Path)
		add("scope", "%s", text)
		_, scope := Must2(config.ParseScope(text))
		read.Scopes = append(read.Scopes, scope)
	}
	if read.Exclusive = s.Exclusive; s.Exclusive {
		add("exclusive", "%s", s.Name)
	}
	for flag, names := range map[string][]hostname.Name{"allow-plain": s.Plain, "allow-unverified": s.Unverified} {
		for _, n := range names {
			add(flag, "%s@%s", s.Name, n)
		}
	}
	read.Plain, read.Unverified = s.Plain, s.Unverified
	b.same("--secret "+s.Name, read, *s)
}

// same fails the test if what flags say is not what was meant.
func (b *Boundary) same(flag string, read, meant any) {
	if !reflect.DeepEqual(read, meant) {
		b.T.Fatalf("%s says %+v, not %+v", flag, read, meant)
	}
}

func hostWords(hosts []secret.Host) string {
	var words []string
	for _, h := range hosts {
		words = append(words, net.JoinHostPort(h.Pattern.String(), strconv.Itoa(int(h.Port))))
	}
	return strings.Join(words, ",")
}

func surfaceWords(s secret.Surfaces) string {
	var words []string
	for word, on := range map[string]bool{"header": s.Header, "basic": s.Basic, "query": s.Query, "path": s.Path, "websocket": s.WebSocket} {
		if on {
			words = append(words, word)
		}
	}
	for _, name := range s.Headers {
		words = append(words, "header:"+name)
	}
	for _, part := range s.Body {
		words = append(words, strings.TrimSuffix("body:"+part.Type+part.Pointer+part.Field, ":"))
	}
	return strings.Join(words, ",")
}

// changed compares fields, functions by what they are made of.
func changed(a, b reflect.Value) bool {
	if a.Kind() == reflect.Func {
		return a.Pointer() != b.Pointer()
	}
	return !reflect.DeepEqual(a.Interface(), b.Interface())
}

// Must2 is [Must] for two results.
func Must2[T, U any](t T, u U, err error) (T, U) {
	if err != nil {
		panic(err)
	}
	return t, u
}
