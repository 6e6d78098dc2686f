package config

import (
	"errors"
	"strings"

	"github.com/cutoutdev/cutout/internal/egress"
	"github.com/cutoutdev/cutout/internal/keeper"
	"github.com/cutoutdev/cutout/internal/source/helper"
)

// An Egress is what flags say about an upstream proxy, unparsed.
type Egress struct {
	Proxy  string   // URL, or NoProxy
	Auth   string   // SCHEME:REF of USER:PASSWORD
	Bypass []string // as in NO_PROXY
	Names  bool     // leave it the names that no resolver knows

	From string // the variable that Proxy comes from, if it is no flag's
}

// NoProxy is said in place of a proxy's URL for none, whatever the
// environment says.
const NoProxy = "none"

// proxyVariables and bypassVariables are what other programs are told the
// same by. HTTP_PROXY is not: most of a guest's connections are HTTPS.
var (
	proxyVariables  = []string{"HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"}
	bypassVariables = []string{"NO_PROXY", "no_proxy"}
)

// Environment takes the proxy of the caller's variables where no flag names
// one. The user is to be told of what it returns, if anything.
func (e *Egress) Environment(lookup func(string) (string, bool)) (notice string) {
	if e.Proxy != "" {
		return ""
	}
	first := func(names []string) (name, text string) {
		for _, name = range names {
			if text, _ = lookup(name); text != "" {
				return name, text
			}
		}
		return "", ""
	}
	e.From, e.Proxy = first(proxyVariables)
	if e.From == "" {
		return ""
	}
	notice = "connections go through the proxy that your variable " + e.From + " names"
	if bypass, text := first(bypassVariables); bypass != "" && e.Bypass == nil {
		e.Bypass = []string{text}
		notice += ", but for the hosts of " + bypass
	}
	return notice + "; --egress-proxy " + NoProxy + " goes without it"
}

// where is what the user knows the proxy's URL by.
func (e Egress) where() string {
	if e.From != "" {
		return "your variable " + e.From
	}
	return "--egress-proxy"
}

// request asks for the proxy's credential, if there is one.
func (e Egress) request() ([]helper.Request, error) {
	if e.Auth == "" || e.Proxy == "" || e.Proxy == NoProxy {
		return nil, nil
	}
	src, _, ok := readSource(e.Auth)
	if !ok {
		return nil, In("egress-proxy-auth", e.Auth, hinted("--egress-proxy-auth does not say where the credential is", "name a source of USER:PASSWORD: "+strings.Join(Schemes(), ", ")))
	}
	return []helper.Request{{Name: keeper.LoginName, Scheme: src.Scheme, Ref: src.Ref}}, nil
}

// maxLogin is what fits into a head with room to spare.
const maxLogin = 4 << 10

// apply parses all of it.
func (e Egress) apply(net *keeper.Net) error {
	if e.Proxy == "" || e.Proxy == NoProxy {
		lacking := func(key, text string) error {
			return In(key, text, hinted("--"+key+" without a proxy", "name it with --egress-proxy URL"))
		}
		switch {
		case e.Auth != "":
			return lacking("egress-proxy-auth", e.Auth)
		case len(e.Bypass) > 0:
			return lacking("egress-proxy-bypass", e.Bypass[0])
		case e.Names:
			return lacking("egress-proxy-dns", "true")
		}
		return nil
	}
	s, err := egress.Parse(e.Proxy)
	switch {
	case errors.Is(err, egress.ErrPassword):
		hint := "leave it out, and say where it is with --egress-proxy-auth SOURCE, which gives USER:PASSWORD"
		if e.From != "" {
			hint = "name the proxy with --egress-proxy URL and where the credential is with --egress-proxy-auth SOURCE, or go without with --egress-proxy " + NoProxy
		}
		return In("egress-proxy", e.Proxy, hinted(e.where()+" holds a credential", hint))
	case err != nil:
		return In("egress-proxy", e.Proxy, hinted(e.where()+" names no proxy: "+err.Error(), "write http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT"))
	}
	if err := each("egress-proxy-bypass", e.Bypass, func(b string) error {
		if strings.Contains(b, "://") || strings.Contains(b, "@") {
			return hinted("--egress-proxy-bypass: one of its hosts is none", "write HOST, .SUFFIX, an address or a prefix, with commas between")
		}
		return nil
	}); err != nil {
		return err
	}
	s.Bypass, s.Login, s.Names = strings.Join(e.Bypass, ","), e.Auth != "", e.Names
	net.Egress = &s
	return nil
}

func (e Egress) texts() []Text {
	texts := []Text{{Where: e.where(), Text: e.Proxy}, {Where: "--egress-proxy-auth", Text: e.Auth}}
	for _, b := range e.Bypass {
		texts = append(texts, Text{Where: "--egress-proxy-bypass", Text: b})
	}
	return texts
}
