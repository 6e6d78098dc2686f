package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cutoutdev/cutout/internal/config"
	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/keeper"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/rewrite"
	"github.com/cutoutdev/cutout/internal/secret"
	"github.com/cutoutdev/cutout/internal/term"
)

func (a *app) explainCommand() *cobra.Command {
	var rules config.Rules
	var fields []string
	var dst string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "explain --secret NAME@HOST [flags] METHOD URL",
		Short: "Say whether a request would get the value, and why not",
		Long: `Explain judges a request as the boundary would, without sending it and without
a sandbox: each gate for each placeholder, with what to change. $NAME in the
URL and in -H stands for the placeholder of a secret; use single quotes. Values
need not be there.

What only a connection can show is taken for granted: that the sandbox's
resolver gives the address, and that the server's certificate is right. With
--dst the address is judged too. cutout explain net judges a connection.

` + rulesHelp + `

Exit status: 0 when every placeholder would be swapped, 1 when not, or when
there is none, 2 when the command line is wrong.`,
		Example: `  cutout explain --secret API_KEY@api.example.com GET https://api.example.com/ok -H 'Authorization: Bearer $API_KEY'
  cutout explain --secret API_KEY@api.example.com --json GET 'https://api.example.com/?key=$API_KEY'`,
		Args:              usage(cobra.ExactArgs(2)),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			also := []config.Text{{Where: "the method", Text: args[0]}, {Where: "the URL", Text: args[1]}, {Where: "--dst", Text: dst}}
			for _, f := range fields {
				also = append(also, config.Text{Where: "-H", Text: f})
			}
			spec, err := rules.Check(cmd.Context(), os.LookupEnv, also...)
			if err != nil {
				return usageError{err}
			}
			x, err := newExplanation(spec, args[0], args[1], fields, dst)
			if err != nil {
				return usageError{err}
			}
			if err := x.print(a, asJSON); err != nil {
				return err
			}
			if x.Outcome != swapped {
				return &exitError{code: exitFailed}
			}
			return nil
		},
	}
	cmd.AddCommand(a.explainNetCommand())
	f := cmd.Flags()
	bindRules(f, &rules)
	f.VarP(listFlag{&fields, "'NAME: VALUE'"}, "header", "H", "a header field of the request")
	f.StringVar(&dst, "dst", "", "the address that is connected to")
	f.BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

// What becomes of a placeholder.
const (
	swapped = "swapped"
	carried = "carried"
	blocked = "refused"
)

// An explanation is what the boundary would make of a request.
type explanation struct {
	Method       string      `json:"method"`
	URL          string      `json:"url"`
	Outcome      string      `json:"outcome"` // the worst of its placeholders'; "none" without
	Reason       string      `json:"reason,omitempty"`
	Placeholders []explained `json:"placeholders"`
}

// explained is one placeholder.
type explained struct {
	Secret   string        `json:"secret"`
	Position string        `json:"position"`
	Field    string        `json:"field,omitempty"`
	Gates    []policy.Gate `json:"gates"`
	Surface  bool          `json:"surface"` // the position is one of the secret's surfaces
	Outcome  string        `json:"outcome"`
	Reason   policy.Reason `json:"reason,omitempty"`
	Hint     string        `json:"hint,omitempty"`
}

func newExplanation(spec keeper.Spec, method, target string, fields []string, dst string) (*explanation, error) {
	var names []string
	var secrets []*secret.Secret
	for i := range spec.Secrets {
		s := &spec.Secrets[i]
		secrets = append(secrets, s)
		names = append(names, "${"+s.Name+"}", s.Placeholder, "$"+s.Name, s.Placeholder)
	}
	put := strings.NewReplacer(names...)
	x := &explanation{Method: method, URL: target, Outcome: "none", Placeholders: []explained{}}
	u, err := url.Parse(put.Replace(target))
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, term.WithHint(fmt.Errorf("%q is not a URL that can be asked for", target), "write https://HOST/PATH")
	}
	h := http.Header{}
	host := u.Host
	for _, f := range fields {
		name, value, ok := strings.Cut(f, ":")
		if !ok || strings.TrimSpace(name) == "" {
			return nil, term.WithHint(fmt.Errorf("-H %q is not a header field", f), "write -H 'NAME: VALUE'")
		}
		value = put.Replace(strings.TrimSpace(value))
		if strings.EqualFold(name, "Host") {
			host = value
			continue
		}
		h.Add(name, value)
	}
	facts, err := factsOf(u, method, host, h)
	if err != nil {
		return nil, err
	}
	for _, n := range spec.TLS.NoVerify {
		facts.NoVerify = facts.NoVerify || n == facts.ServerName
	}
	if dst != "" {
		addr, err := netip.ParseAddr(dst)
		if err != nil {
			return nil, fmt.Errorf("--dst %q is not an address", dst)
		}
		if v := policy.NewNetwork(policy.ProfilePublic).Address(addr.Unmap()); !v.Allowed {
			x.Reason, facts.Pinned = string(v.Reason), false
		}
	}
	for _, o := range rewrite.NewFinder(secrets).Head(method, facts.Target, host, h) {
		p := judged(spec, facts, o)
		x.Placeholders = append(x.Placeholders, p)
		if x.Outcome == "none" || p.Outcome == blocked || x.Outcome == swapped {
			x.Outcome = p.Outcome
		}
	}
	if x.Reason != "" {
		x.Outcome = blocked
	}
	return x, nil
}

// factsOf are those of a request of which all goes well.
func factsOf(u *url.URL, method, host string, h http.Header) (policy.Facts, error) {
	name, err := hostname.Parse(u.Hostname())
	if err != nil {
		return policy.Facts{}, fmt.Errorf("the URL's host: %w", err)
	}
	f := policy.Facts{
		ServerName: name, Port: 443, TLS: u.Scheme == "https",
		Pinned: true, Direct: true, Reached: true, Verified: u.Scheme == "https", OneName: true,
		Method: method, Target: u.RequestURI(), Header: h,
	}
	if !f.TLS {
		f.Port = 80
	}
	if p := u.Port(); p != "" {
		if f.Port, err = hostname.ParsePort(p); err != nil {
			return policy.Facts{}, fmt.Errorf("the URL's port: %w", err)
		}
	}
	f.Authority, err = hostname.ParseAuthority(host)
	f.AuthorityOK = err == nil
	return f, nil
}

// judged is what becomes of one placeholder, as proxy does it.
func judged(spec keeper.Spec, f policy.Facts, o rewrite.Occurrence) explained {
	p := explained{
		Secret: o.Secret.Name, Position: o.Position.String(), Field: o.Field,
		Gates: policy.Explain(f, o.Secret), Surface: rewrite.Allowed(o), Outcome: blocked,
	}
	v := spec.OnViolation
	if o.Secret.OnViolation != nil {
		v = *o.Secret.OnViolation
	}
	d := policy.Decide(f, o.Secret)
	switch {
	case o.Position.Never():
		p.Reason = policy.BadPosition
	case !d.Substitute:
		p.Reason = d.Reason
		if v.Head(f.ServerName) == secret.Passthrough {
			p.Outcome = carried
		}
	case strings.EqualFold(f.Method, "TRACE"), strings.EqualFold(f.Method, "TRACK"):
		p.Reason = policy.TraceMethod
	case !p.Surface:
		p.Reason = policy.SurfaceOff
	default:
		p.Outcome = swapped
	}
	p.Hint = p.Reason.Hint()
	return p
}

func (x *explanation) print(a *app, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(a.stdout)
		enc.SetEscapeHTML(false)
		return enc.Encode(x)
	}
	var b strings.Builder
	for _, p := range x.Placeholders {
		place := p.Position
		if p.Field != "" {
			place += " " + p.Field
		}
		fmt.Fprintf(&b, "%s in the %s: %s\n", p.Secret, term.Escape(place), p.Outcome)
		for _, g := range p.Gates {
			fmt.Fprintf(&b, "  %-4s  %s\n", verdict(g.Pass), g.Name)
		}
		fmt.Fprintf(&b, "  %-4s  surface\n", verdict(p.Surface))
		if p.Reason != policy.None {
			fmt.Fprintf(&b, "  %s: %s\n  hint: %s\n", p.Reason, p.Reason.What(), p.Hint)
		}
	}
	if len(x.Placeholders) == 0 {
		fmt.Fprintln(&b, "no placeholder stands in the request: it goes out as it is")
	}
	if x.Reason != "" {
		r := policy.Reason(x.Reason)
		fmt.Fprintf(&b, "%s: %s\nhint: %s\n", r, r.What(), r.Hint())
	}
	_, err := fmt.Fprint(a.stdout, b.String())
	return err
}

func verdict(pass bool) string {
	if pass {
		return "pass"
	}
	return "fail"
}
