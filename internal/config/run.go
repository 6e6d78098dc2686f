package config

import (
	"fmt"
	"path"
	"strings"

	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/keeper"
	"github.com/cutoutdev/cutout/internal/secret"
)

// A Run is what the flags of cutout run say, unparsed. Its zero value is a
// sandbox without secrets.
type Run struct {
	Secrets      []string // NAME@HOST,…
	Placeholders []string // NAME=TEXT
	OnViolation  []string // [NAME=]ACTION[:HOST,…]

	Args    []string
	Env     []string // NAME=VALUE, or NAME to take the caller's
	Dir     string
	User    string
	Memory  string
	CPUs    int
	Volumes []string

	NoNet         bool
	ConnectTo     []string
	Nameservers   []string
	Intercept     string
	Bypass        []string
	UpstreamCAs   []string
	UpstreamCAFor []string
	WeakCage      bool

	Also []Text // what the user wrote besides: searched for values before anything is parsed
}

// Defaults of the machine.
const (
	DefaultMemoryMiB = 1024
	DefaultCPUs      = 1
)

// Build makes the specification and reads the values with lookup, which is
// os.LookupEnv in the CLI. The caller fills in ID, Dirs, kernel and disk,
// and zeroes the values when they have been handed over.
func (r Run) Build(lookup func(string) (string, bool)) (keeper.Spec, []keeper.Value, error) {
	var spec keeper.Spec
	values, err := r.secrets(&spec, lookup)
	// Before anything is parsed, since errors quote what they do not like.
	if held := CheckTexts(values, r.texts()); held != nil {
		err = held
	}
	if err == nil {
		err = r.rules(&spec)
	}
	if err == nil {
		err = r.guest(&spec, lookup)
	}
	if err == nil {
		err = r.machine(&spec)
	}
	if err == nil {
		err = r.network(&spec)
	}
	if err == nil {
		err = checkEnv(spec, values)
	}
	if err != nil {
		return keeper.Spec{}, nil, err
	}
	return spec, values, nil
}

// secrets reads every value that it can, also when it fails, so that the
// failure can be searched for them.
func (r Run) secrets(spec *keeper.Spec, lookup func(string) (string, bool)) ([]keeper.Value, error) {
	var values []keeper.Value
	var first error
	for _, text := range r.Secrets {
		f, err := ParseSecret(text)
		name, ref := f.Name, f.Source.Ref
		if err != nil {
			name, _, _ = strings.Cut(text, "@")
			name, _, _ = strings.Cut(name, "=")
			ref = name
		}
		value, ok := lookup(ref)
		if len(value) >= secret.MinValue { // a shorter one stands anywhere
			values = append(values, keeper.Value{Name: name, Data: []byte(value)})
		}
		switch {
		case err != nil:
		case !ok:
			hint := "--secret takes the name of a variable, not its value"
			if shown(ref) == ref {
				hint = fmt.Sprintf("export %s and try again", ref)
			}
			err = hinted(fmt.Sprintf("--secret %s: the environment variable %s is not set", shown(name), shown(ref)), hint)
		case value == "":
			err = hinted(fmt.Sprintf("--secret %s: the environment variable %s is empty", name, ref),
				fmt.Sprintf("export %s and try again", ref))
		default:
			err = checkValue(name, value)
		}
		if err != nil && first == nil {
			first = err
		}
		if err == nil {
			spec.Secrets = append(spec.Secrets, secret.Secret{Name: name, Placeholder: DefaultPlaceholder(name), Hosts: f.Hosts})
		}
	}
	return values, first
}

// rules reads what the user wrote about secrets besides their hosts.
func (r Run) rules(spec *keeper.Spec) error {
	find := func(flag, name string) (*secret.Secret, error) {
		for i := range spec.Secrets {
			if spec.Secrets[i].Name == name {
				return &spec.Secrets[i], nil
			}
		}
		return nil, fmt.Errorf("%s: there is no secret %s", flag, shown(name))
	}
	for _, text := range r.Placeholders {
		name, placeholder, err := ParsePlaceholder(text)
		if err != nil {
			return err
		}
		s, err := find("--placeholder", name)
		if err != nil {
			return err
		}
		s.Placeholder = placeholder
	}
	for _, text := range r.OnViolation {
		name, v, err := ParseViolation(text)
		if err != nil {
			return err
		}
		if name == "" {
			spec.OnViolation = v
			continue
		}
		s, err := find("--on-violation", name)
		if err != nil {
			return err
		}
		s.OnViolation = &v
	}
	return checkSet(spec.Secrets)
}

// checkValue refuses here what the keeper's store would refuse later.
func checkValue(name, value string) error {
	switch {
	case len(value) < secret.MinValue:
		return hinted(fmt.Sprintf("the value of %s is shorter than %d bytes", name, secret.MinValue),
			"so short a text turns up by chance in answers and could not be told from the value")
	case len(value) > secret.MaxValue:
		return fmt.Errorf("the value of %s is longer than %d bytes", name, secret.MaxValue)
	case strings.ContainsAny(value, "\r\n\x00"):
		return hinted(fmt.Sprintf("the value of %s holds a line break or NUL, which no header can carry", name),
			fmt.Sprintf("if it was read from a file, use %s=$(cat FILE)", name))
	}
	return nil
}

// checkSet refuses here what the keeper would refuse later.
func checkSet(specs []secret.Secret) error {
	all := make([]*secret.Secret, len(specs))
	for i := range specs {
		all[i] = &specs[i]
	}
	_, err := secret.NewSet(all)
	return err
}

func (r Run) guest(spec *keeper.Spec, lookup func(string) (string, bool)) error {
	for _, e := range r.Env {
		name, _, given := strings.Cut(e, "=")
		if name == "" || strings.ContainsRune(e, 0) {
			return hinted("invalid -e", "write -e NAME=VALUE, or -e NAME to pass on the caller's")
		}
		for _, s := range spec.Secrets {
			if s.Name == name {
				return hinted(fmt.Sprintf("-e %s: %s is a secret", name, name), "the guest's variable is set to the placeholder without -e")
			}
		}
		if !given {
			value, ok := lookup(name)
			if !ok {
				continue // as docker: a variable that the caller lacks is not set
			}
			e = name + "=" + value
		}
		spec.Guest.Env = append(spec.Guest.Env, e)
	}
	if r.Dir != "" && !path.IsAbs(r.Dir) {
		return fmt.Errorf("-w %q: the working directory must be absolute", r.Dir)
	}
	return nil
}

func (r Run) machine(spec *keeper.Spec) error {
	m := &spec.Machine
	m.MemoryMiB, m.CPUs, m.WeakCage = DefaultMemoryMiB, DefaultCPUs, r.WeakCage
	if r.Memory != "" {
		var err error
		if m.MemoryMiB, err = ParseMemory(r.Memory); err != nil {
			return err
		}
	}
	if r.CPUs < 0 || r.CPUs > maxCPUs {
		return fmt.Errorf("-c %d: a sandbox has 1 to %d CPUs", r.CPUs, maxCPUs)
	}
	if r.CPUs > 0 {
		m.CPUs = r.CPUs
	}
	for _, v := range r.Volumes {
		volume, err := ParseVolume(v)
		if err != nil {
			return err
		}
		m.Volumes = append(m.Volumes, volume)
	}
	if len(m.Volumes) > maxVolumes {
		return fmt.Errorf("more than %d volumes", maxVolumes)
	}
	return nil
}

const (
	maxCPUs    = 64
	maxVolumes = 12 // the microvm board has 24 virtio slots; the rest is the machine's own
)

func (r Run) network(spec *keeper.Spec) error {
	spec.Net.Off = r.NoNet
	for _, text := range r.ConnectTo {
		c, err := ParseConnectTo(text)
		if err != nil {
			return err
		}
		spec.Net.ConnectTo = append(spec.Net.ConnectTo, c)
	}
	for _, text := range r.Nameservers {
		ns, err := ParseNameserver(text)
		if err != nil {
			return err
		}
		spec.Net.Nameservers = append(spec.Net.Nameservers, ns)
	}
	return r.tls(spec)
}

func (r Run) tls(spec *keeper.Spec) error {
	switch r.Intercept {
	case "", "auto":
		spec.TLS.Intercept = "auto"
	case "all", "off":
		spec.TLS.Intercept = r.Intercept
	default:
		return hinted(fmt.Sprintf("unknown --tls-intercept %q", r.Intercept), "use auto, all or off")
	}
	for _, text := range r.Bypass {
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
	}
	for _, file := range r.UpstreamCAs {
		data, err := ReadUpstreamCA(file)
		if err != nil {
			return err
		}
		spec.TLS.CAs = append(spec.TLS.CAs, keeper.UpstreamCA{PEM: data})
	}
	for _, text := range r.UpstreamCAFor {
		ca, err := ParseUpstreamCAFor(text)
		if err != nil {
			return err
		}
		spec.TLS.CAs = append(spec.TLS.CAs, ca)
	}
	return nil
}

// texts lists all that the user wrote.
func (r Run) texts() []Text {
	texts := []Text{{"-w", r.Dir}, {"-u", r.User}, {"-m", r.Memory}, {"--tls-intercept", r.Intercept}}
	for i, arg := range r.Args {
		where := "the command"
		if i > 0 {
			where = fmt.Sprintf("the command (argument %d)", i)
		}
		texts = append(texts, Text{where, arg})
	}
	for _, e := range r.Env {
		name, _, _ := strings.Cut(e, "=")
		texts = append(texts, Text{"-e", name}, Text{"-e " + name, e})
	}
	for _, p := range r.Placeholders {
		name, text, _ := strings.Cut(p, "=")
		texts = append(texts, Text{"--placeholder", name}, Text{"the placeholder of " + name, text})
	}
	for flag, list := range map[string][]string{
		"--secret": r.Secrets, "--on-violation": r.OnViolation, "-v": r.Volumes, "--connect-to": r.ConnectTo,
		"--dns-nameserver": r.Nameservers, "--tls-bypass": r.Bypass,
		"--tls-upstream-ca-cert": r.UpstreamCAs, "--tls-upstream-ca-cert-for": r.UpstreamCAFor,
	} {
		for _, text := range list {
			texts = append(texts, Text{flag, text})
		}
	}
	return append(texts, r.Also...)
}

// checkEnv searches the variables that -e took from the caller, and what
// becomes of volumes' paths, for every value.
func checkEnv(spec keeper.Spec, values []keeper.Value) error {
	var texts []Text
	for _, e := range spec.Guest.Env {
		name, _, _ := strings.Cut(e, "=")
		texts = append(texts, Text{"-e " + name, e})
	}
	for _, s := range spec.Secrets {
		texts = append(texts, Text{"the placeholder of " + s.Name, s.Placeholder})
	}
	for _, v := range spec.Machine.Volumes {
		texts = append(texts, Text{"-v", v.Source})
	}
	return CheckTexts(values, texts)
}

// CheckTexts refuses texts that hold one of the values.
func CheckTexts(values []keeper.Value, texts []Text) error {
	for _, v := range values {
		if err := CheckHandover(v.Name, v.Data, texts); err != nil {
			return err
		}
	}
	return nil
}
