package config

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/keeper"
)

// A Boundary is what flags say about secrets and the network, unparsed. They
// are the same for every command that starts a boundary.
type Boundary struct {
	Rules

	Network       Network
	Rates         []string // [in:|out:]N[k|m|g][p], a second
	Egress        Egress
	ConnectTo     []string
	Nameservers   []string
	OnlyAllowed   bool // names that a rule or secret names are the only ones resolved
	Intercept     string
	Bypass        []string
	UpstreamCAs   []string
	UpstreamCAFor []string
	Published     []string // [BIND:][HOST:]GUEST[/udp]
	Audit         string   // "" or best-effort
	Export        Export

	Args []string // the command
	Also []Text   // what the user wrote besides: searched for values before anything is parsed
}

// TakeEnvironment takes what the caller's variables say where no flag does, as
// [Egress.Environment] and [Export.Environment] describe.
func (b *Boundary) TakeEnvironment(lookup func(string) (string, bool), notice func(string)) error {
	if text := b.Egress.Environment(lookup); text != "" {
		notice(text)
	}
	text, err := b.Export.Environment(lookup)
	if text != "" {
		notice(text)
	}
	return err
}

// Build makes the specification of a boundary for a workload that is no
// machine of ours, and has the values read, which then are held by values.
func (b Boundary) Build(ctx context.Context, values Values) (keeper.Spec, error) {
	return b.build(ctx, values, b.texts())
}

// build makes the specification of a boundary and of what more adds, and has
// the values read, which then are held by values. Texts are all that the user
// wrote.
func (b Boundary) build(ctx context.Context, values Values, texts []Text, more ...func(*keeper.Spec) error) (keeper.Spec, error) {
	var spec keeper.Spec
	login, checkLogin, badLogin := b.logins()
	read, err := b.bind(ctx, &spec, values, true, login...)
	for i, r := range read {
		err = cmp.Or(err, checkLogin(login[i], r))
	}
	err = cmp.Or(err, badLogin)
	// Before anything is parsed, since errors quote what they do not like.
	if held := values.Check(ctx, texts); held != nil {
		err = held
	}
	for _, step := range append(append([]func(*keeper.Spec) error{b.apply}, more...), b.network, b.publish, b.audit, b.Export.apply) {
		if err == nil {
			err = step(&spec)
		}
	}
	if err == nil {
		err = values.Check(ctx, derivedTexts(spec))
	}
	if err != nil {
		return keeper.Spec{}, err
	}
	return spec, nil
}

func (b Boundary) audit(spec *keeper.Spec) error {
	switch b.Audit {
	case "", "strict":
	case "best-effort":
		spec.AuditBestEffort = true
	default:
		return In("audit", b.Audit, hinted("--audit: unknown mode", "write --audit strict, which is the default, or --audit best-effort"))
	}
	return nil
}

func (b Boundary) network(spec *keeper.Spec) error {
	if err := b.Network.Apply(&spec.Net); err != nil {
		return err
	}
	if err := b.rates(&spec.Net); err != nil {
		return err
	}
	if err := b.Egress.apply(&spec.Net); err != nil {
		return err
	}
	spec.Net.OnlyAllowed = b.OnlyAllowed
	if err := each("connect-to", b.ConnectTo, func(text string) error {
		c, err := ParseConnectTo(text)
		spec.Net.ConnectTo = append(spec.Net.ConnectTo, c)
		return err
	}); err != nil {
		return err
	}
	if err := each("dns-nameserver", b.Nameservers, func(text string) error {
		ns, err := ParseNameserver(text)
		spec.Net.Nameservers = append(spec.Net.Nameservers, ns)
		return err
	}); err != nil {
		return err
	}
	return b.tls(spec)
}

func (b Boundary) tls(spec *keeper.Spec) error {
	switch b.Intercept {
	case "", "auto":
		spec.TLS.Intercept = "auto"
	case "all", "off":
		spec.TLS.Intercept = b.Intercept
	default:
		return In("tls-intercept", b.Intercept, hinted(fmt.Sprintf("unknown --tls-intercept %q", b.Intercept), "use auto, all or off"))
	}
	if err := scrubAll(spec); err != nil {
		return err
	}
	if err := each("tls-bypass", b.Bypass, func(text string) error {
		p, err := hostname.ParsePattern(text)
		if err != nil {
			return fmt.Errorf("--tls-bypass: %w", err)
		}
		for _, s := range spec.Secrets {
			for _, h := range s.Hosts {
				if p.Overlaps(h.Pattern) {
					return fmt.Errorf("--tls-bypass %s covers %s, a host of %s, which must be intercepted", p, h.Pattern, s.Name)
				}
			}
		}
		spec.TLS.Bypass = append(spec.TLS.Bypass, p)
		return nil
	}); err != nil {
		return err
	}
	if err := each("tls-upstream-ca-cert", b.UpstreamCAs, func(file string) error {
		data, err := ReadUpstreamCA(file)
		spec.TLS.CAs = append(spec.TLS.CAs, keeper.UpstreamCA{PEM: data})
		return err
	}); err != nil {
		return err
	}
	return each("tls-upstream-ca-cert-for", b.UpstreamCAFor, func(text string) error {
		ca, err := ParseUpstreamCAFor(text)
		spec.TLS.CAs = append(spec.TLS.CAs, ca)
		return err
	})
}

// texts lists all that the user wrote.
func (b Boundary) texts() []Text {
	texts := append(slices.Concat(b.Rules.texts(), b.Network.texts(), b.Egress.texts(), b.Export.texts()), Text{Where: "--tls-intercept", Text: b.Intercept}, Text{Where: "--audit", Text: b.Audit})
	for i, arg := range b.Args {
		where := "the command"
		if i > 0 {
			where = fmt.Sprintf("the command (argument %d)", i)
		}
		texts = append(texts, Text{Where: where, Text: arg})
	}
	for flag, list := range map[string][]string{
		"--net-rate": b.Rates, "--connect-to": b.ConnectTo, "--dns-nameserver": b.Nameservers, "--tls-bypass": b.Bypass,
		"--tls-upstream-ca-cert": b.UpstreamCAs, "--tls-upstream-ca-cert-for": b.UpstreamCAFor, "-p": b.Published,
	} {
		for _, text := range list {
			texts = append(texts, Text{Where: flag, Text: text})
		}
	}
	return append(texts, b.Also...)
}

// derivedTexts lists the variables that -e took from the caller, and what has
// become of placeholders and volumes' paths.
func derivedTexts(spec keeper.Spec) []Text {
	var texts []Text
	for _, e := range spec.Guest.Env {
		name, _, _ := strings.Cut(e, "=")
		texts = append(texts, Text{Where: "-e " + name, Text: e})
	}
	for _, s := range spec.Secrets {
		texts = append(texts, Text{Where: "the placeholder of " + s.Name, Text: s.Placeholder})
	}
	for _, v := range spec.Machine.Volumes {
		texts = append(texts, Text{Where: "-v", Text: v.Source})
	}
	return texts
}
