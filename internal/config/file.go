package config

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// A File is what a file of --conf says. Its keys are the names of flags and
// its texts what follows them, so there is one grammar; what belongs to a
// secret stands below the secret. It refers to values and never holds one.
// The schema of [Schema] is made of this type.
type File struct {
	Image   text `yaml:"image" doc:"the image, as cutout run takes it"`
	Command list `yaml:"command" doc:"the command, a text for each argument"`

	Secrets           map[string]FileSecret `yaml:"secrets" doc:"the secrets, each under the name of its variable"`
	OnViolation       text                  `yaml:"on-violation" doc:"what to do with a placeholder that may not be swapped, for all secrets"`
	Scrub             list                  `yaml:"scrub" doc:"[HOST=]MODE: how answers are searched for values; dangerous: lax, off"`
	NoVerify          list                  `yaml:"tls-no-verify-upstream-for" doc:"dangerous: hosts whose certificate is not verified"`
	AllowSharedSuffix list                  `yaml:"allow-shared-suffix" doc:"dangerous: *.SUFFIX that may be a host though anybody can own a name there"`

	Env     map[string]*text `yaml:"env" doc:"variables of the guest; one without a value is taken from yours"`
	Workdir text             `yaml:"workdir" doc:"working directory in the guest"`
	User    text             `yaml:"user" doc:"USER[:GROUP] in the guest"`
	Memory  text             `yaml:"memory" doc:"memory, 512m or 2g"`
	CPUs    count            `yaml:"cpus" doc:"number of CPUs"`
	Volume  list             `yaml:"volume" doc:"DIR:/PATH:ro: directories of which the guest gets a copy"`
	Copy    list             `yaml:"copy" doc:"SRC:/DST: files and directories that are copied into the guest"`
	Timeout text             `yaml:"timeout" doc:"end the sandbox when its command has run for this long, such as 5m"`
	TTY     *bool            `yaml:"tty" doc:"whether the command gets a terminal; without it, as there is one"`
	Quiet   *bool            `yaml:"quiet" doc:"no progress, notices and refusals on standard error"`

	Net               text  `yaml:"net" doc:"what may be reached: public, private, host, all or none"`
	NetRule           list  `yaml:"net-rule" doc:"ACTION[:DIRECTION]@TARGET[:PROTOCOL[:PORTS]]; the first that matches decides"`
	NetDefault        text  `yaml:"net-default" doc:"allow or deny what no rule decides, in place of net"`
	NetDefaultEgress  text  `yaml:"net-default-egress" doc:"the same for what the guest begins"`
	NetDefaultIngress text  `yaml:"net-default-ingress" doc:"the same for what comes to published ports"`
	Publish           list  `yaml:"publish" doc:"[BIND:]HOST:GUEST[/udp]: ports of the guest to publish on this machine"`
	Rates             list  `yaml:"net-rate" doc:"[in:|out:]N: bytes a second, or packets with p behind, each way"`
	EgressProxy       text  `yaml:"egress-proxy" doc:"URL of an upstream proxy, http, https or socks5, or none whatever your HTTPS_PROXY says"`
	EgressAuth        text  `yaml:"egress-proxy-auth" doc:"where the proxy's credential, USER:PASSWORD, comes from, SCHEME:REF. Never the value"`
	EgressBypass      list  `yaml:"egress-proxy-bypass" doc:"hosts that are reached without the proxy, as in NO_PROXY"`
	EgressNames       *bool `yaml:"egress-proxy-dns" doc:"leave names that no resolver here knows to the proxy"`
	ConnectTo         list  `yaml:"connect-to" doc:"NAME:PORT=ADDR:PORT: serve a name from elsewhere"`
	Nameservers       list  `yaml:"dns-nameserver" doc:"ADDR[:PORT] of resolvers in place of the host's"`
	OnlyAllowed       *bool `yaml:"dns-only-allowed" doc:"resolve no names but those that rules and secrets name"`
	Intercept         text  `yaml:"tls-intercept" doc:"which TLS connections to open: auto, all or off"`
	Bypass            list  `yaml:"tls-bypass" doc:"hosts to which TLS connections are never opened"`
	UpstreamCAs       list  `yaml:"tls-upstream-ca-cert" doc:"PEM files with certificates that are trusted too"`
	UpstreamCAFor     list  `yaml:"tls-upstream-ca-cert-for" doc:"HOST=FILE: the same for one host"`
	Audit             text  `yaml:"audit" doc:"strict, or, dangerous, best-effort: write values also when the audit log cannot be"`
	Metrics           text  `yaml:"metrics" doc:"[ADDR:]PORT or unix:PATH where Prometheus may ask, at 127.0.0.1 unless ADDR is given"`
	OTLP              text  `yaml:"otlp" doc:"URL of an OpenTelemetry collector that gets the audit events, or env for what your OTEL_EXPORTER_OTLP_ variables say"`
	OTLPHeaders       text  `yaml:"otlp-headers" doc:"where the headers for the collector, NAME=VALUE with commas between, come from, SCHEME:REF. Never the value"`
	OTLPCA            text  `yaml:"otlp-ca-cert" doc:"PEM file with the certificates that are trusted for the collector, in place of the system's"`
	NoSnapshot        *bool `yaml:"no-snapshot" doc:"boot the machine, where it could start from one that has booted before"`
	WeakCage          *bool `yaml:"weak-cage" doc:"dangerous: start even where QEMU cannot be confined"`
}

// A FileSecret is one secret of a [File].
type FileSecret struct {
	Source          text  `yaml:"source" doc:"where the value comes from, SCHEME:REF; without it, your variable of the secret's name. Never the value"`
	Hosts           list  `yaml:"hosts" doc:"HOST[:PORT] that may get the value; none for a well-known credential"`
	Placeholder     text  `yaml:"placeholder" doc:"what stands for the secret in the guest, or shaped"`
	Surface         list  `yaml:"surface" doc:"where in a request the value may go"`
	Scope           list  `yaml:"scope" doc:"METHOD PATH: which requests may carry the value"`
	OnViolation     text  `yaml:"on-violation" doc:"what to do with a placeholder that may not be swapped"`
	Exclusive       *bool `yaml:"exclusive" doc:"refuse requests to the hosts that carry another credential"`
	AllowPlain      list  `yaml:"allow-plain" doc:"dangerous: hosts to which the value may go unencrypted"`
	AllowUnverified list  `yaml:"allow-unverified" doc:"dangerous: hosts to which the value may go without proof of who they are"`
	AllowAnyHost    *bool `yaml:"allow-any-host" doc:"dangerous: the host may be *, every server that the guest names"`
	AllowShort      *bool `yaml:"allow-short" doc:"dangerous: the value may be shorter than 8 bytes; it is never searched for"`
}

// Merge adds to r what f says and no flag does. given reports whether a flag
// was: it then replaces the key of its name, and of a secret or variable what
// f says of that one under this word.
func (f File) Merge(r *Run, given func(flag string) bool) {
	f.MergeBoundary(&r.Boundary, given)
	for _, name := range keys(f.Env) {
		if slices.ContainsFunc(r.Env, func(e string) bool { n, _, _ := strings.Cut(e, "="); return n == name }) {
			continue
		}
		r.Env = append(r.Env, variable(name, f.Env[name]))
	}
	if f.CPUs != 0 && !given("cpus") {
		r.CPUs = int(f.CPUs)
	}
	m := merger{given}
	m.text("workdir", &r.Dir, f.Workdir)
	m.text("user", &r.User, f.User)
	m.text("memory", &r.Memory, f.Memory)
	m.list("volume", &r.Volumes, f.Volume)
	m.flag("weak-cage", &r.WeakCage, f.WeakCage)
}

// MergeBoundary is [File.Merge] of what a boundary without a machine has.
func (f File) MergeBoundary(b *Boundary, given func(flag string) bool) {
	for _, name := range keys(f.Secrets) {
		f.Secrets[name].merge(name, &b.Rules)
	}
	if f.OnViolation != "" && !slices.ContainsFunc(b.OnViolation, func(s string) bool { return !strings.Contains(s, "=") }) {
		b.OnViolation = append(b.OnViolation, string(f.OnViolation))
	}
	if len(b.Args) == 0 {
		b.Args = f.Command
	}
	m := merger{given}
	m.list("scrub", &b.Scrub, f.Scrub)
	m.list("tls-no-verify-upstream-for", &b.NoVerify, f.NoVerify)
	m.list("allow-shared-suffix", &b.AllowSharedSuffix, f.AllowSharedSuffix)
	f.mergeProfile(&b.Network, given)
	m.list("net-rule", &b.Network.Rules, f.NetRule)
	m.list("publish", &b.Published, f.Publish)
	m.list("net-rate", &b.Rates, f.Rates)
	m.text("egress-proxy", &b.Egress.Proxy, f.EgressProxy)
	m.text("egress-proxy-auth", &b.Egress.Auth, f.EgressAuth)
	m.list("egress-proxy-bypass", &b.Egress.Bypass, f.EgressBypass)
	m.flag("egress-proxy-dns", &b.Egress.Names, f.EgressNames)
	m.list("connect-to", &b.ConnectTo, f.ConnectTo)
	m.list("dns-nameserver", &b.Nameservers, f.Nameservers)
	m.flag("dns-only-allowed", &b.OnlyAllowed, f.OnlyAllowed)
	m.text("tls-intercept", &b.Intercept, f.Intercept)
	m.list("tls-bypass", &b.Bypass, f.Bypass)
	m.list("tls-upstream-ca-cert", &b.UpstreamCAs, f.UpstreamCAs)
	m.list("tls-upstream-ca-cert-for", &b.UpstreamCAFor, f.UpstreamCAFor)
	m.text("audit", &b.Audit, f.Audit)
	m.text("metrics", &b.Export.Metrics, f.Metrics)
	m.text("otlp", &b.Export.OTLP, f.OTLP)
	m.text("otlp-headers", &b.Export.Headers, f.OTLPHeaders)
	m.text("otlp-ca-cert", &b.Export.CA, f.OTLPCA)
}

// A merger sets what no flag has.
type merger struct{ given func(flag string) bool }

func (m merger) text(flag string, to *string, from text) {
	if !m.given(flag) && from != "" {
		*to = string(from)
	}
}

func (m merger) list(flag string, to *[]string, from list) {
	if !m.given(flag) && from != nil {
		*to = from
	}
}

func (m merger) flag(flag string, to *bool, from *bool) {
	if !m.given(flag) && from != nil {
		*to = *from
	}
}

// NoMachine refuses what only a machine has.
func (f File) NoMachine() error {
	only := func(key, text string) error {
		return In(key, text, hinted(key+": there is no machine here", "leave it out, or start one with cutout run"))
	}
	for _, name := range keys(f.Env) {
		return only("env", variable(name, f.Env[name]))
	}
	for _, of := range []struct {
		key   string
		texts []string
	}{{"image", one(f.Image)}, {"memory", one(f.Memory)}, {"volume", f.Volume}, {"copy", f.Copy}} {
		if len(of.texts) > 0 {
			return only(of.key, of.texts[0])
		}
	}
	if f.CPUs != 0 {
		return only("cpus", strconv.Itoa(int(f.CPUs)))
	}
	for _, of := range []struct {
		key string
		set *bool
	}{{"no-snapshot", f.NoSnapshot}, {"weak-cage", f.WeakCage}} {
		if of.set != nil {
			return only(of.key, strconv.FormatBool(*of.set))
		}
	}
	return nil
}

// mergeProfile: --net, --no-net and the defaults exclude each other, so one
// of them as a flag replaces whichever of them the file has.
func (f File) mergeProfile(n *Network, given func(flag string) bool) {
	if slices.ContainsFunc([]string{"net", "no-net", "net-default", "net-default-egress", "net-default-ingress"}, given) {
		return
	}
	n.Profile, n.Default = string(f.Net), string(f.NetDefault)
	n.DefaultEgress, n.DefaultIngress = string(f.NetDefaultEgress), string(f.NetDefaultIngress)
}

// variable is what -e is given.
func variable(name string, value *text) string {
	if value == nil {
		return name
	}
	return name + "=" + string(*value)
}

// flag is what --secret is given.
func (s FileSecret) flag(name string) string {
	if s.Source != "" {
		name += "=" + string(s.Source)
	}
	if s.Hosts != nil {
		name += "@" + strings.Join(s.Hosts, ",")
	}
	return name
}

// one is t as a list, empty if it is.
func one(t text) []string {
	if t == "" {
		return nil
	}
	return []string{string(t)}
}

// merge writes the secret as flags would.
func (s FileSecret) merge(name string, r *Rules) {
	begins := func(texts []string, with string) bool {
		return slices.ContainsFunc(texts, func(t string) bool { return t == name || with != "" && strings.HasPrefix(t, name+with) })
	}
	if !begins(r.Secrets, "=") && !begins(r.Secrets, "@") {
		r.Secrets = append(r.Secrets, s.flag(name))
	}
	add := func(to *[]string, with string, texts ...string) {
		if begins(*to, with) {
			return
		}
		for _, t := range texts {
			*to = append(*to, name+with+t)
		}
	}
	add(&r.Placeholders, "=", one(s.Placeholder)...)
	add(&r.Surfaces, "=", s.Surface...)
	add(&r.Scopes, "=", s.Scope...)
	add(&r.OnViolation, "=", one(s.OnViolation)...)
	add(&r.AllowPlain, "@", s.AllowPlain...)
	add(&r.AllowUnverified, "@", s.AllowUnverified...)
	for to, on := range map[*[]string]*bool{&r.Exclusive: s.Exclusive, &r.AllowAnyHost: s.AllowAnyHost, &r.AllowShort: s.AllowShort} {
		if on != nil && *on {
			add(to, "", "") // the name alone
		}
	}
}

// Deadline returns the file's timeout, 0 if it has none.
func (f File) Deadline() (time.Duration, error) {
	if f.Timeout == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(string(f.Timeout))
	if err != nil || d < 0 {
		return 0, In("timeout", string(f.Timeout), hinted("timeout: it is not a duration", "write 90s, 5m or 2h"))
	}
	return d, nil
}

// runs reports whether reading its values would run a command.
func (f File) runs() bool {
	for _, s := range f.Secrets {
		if strings.HasPrefix(string(s.Source), "exec:") {
			return true
		}
	}
	return strings.HasPrefix(string(f.EgressAuth), "exec:") || strings.HasPrefix(string(f.OTLPHeaders), "exec:")
}
