package config

import (
	"context"
	"fmt"
	"path"
	"strings"

	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/keeper"
)

// A Run is what the flags of cutout run say, unparsed. Its zero value is a
// sandbox without secrets.
type Run struct {
	Rules

	Args    []string
	Env     []string // NAME=VALUE, or NAME to take the caller's
	Dir     string
	User    string
	Memory  string
	CPUs    int
	Volumes []string

	Network       Network
	ConnectTo     []string
	Nameservers   []string
	OnlyAllowed   bool // names that a rule or secret names are the only ones resolved
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

// Build makes the specification and has the values read, which then are held
// by values. The variables of -e are looked up with lookup, which is
// os.LookupEnv in the CLI. The caller fills in ID, Dirs, kernel and disk.
func (r Run) Build(ctx context.Context, lookup func(string) (string, bool), values Values) (keeper.Spec, error) {
	var spec keeper.Spec
	err := r.bind(ctx, &spec, values, true)
	// Before anything is parsed, since errors quote what they do not like.
	if held := values.Check(ctx, r.allTexts()); held != nil {
		err = held
	}
	if err == nil {
		err = r.apply(&spec)
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
		err = values.Check(ctx, derivedTexts(spec))
	}
	if err != nil {
		return keeper.Spec{}, err
	}
	return spec, nil
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
	if err := r.Network.Apply(&spec.Net); err != nil {
		return err
	}
	spec.Net.OnlyAllowed = r.OnlyAllowed
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
	if err := scrubAll(spec); err != nil {
		return err
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

// allTexts lists all that the user wrote.
func (r Run) allTexts() []Text {
	texts := append(append(r.texts(), r.Network.texts()...), []Text{{Where: "-w", Text: r.Dir}, {Where: "-u", Text: r.User}, {Where: "-m", Text: r.Memory}, {Where: "--tls-intercept", Text: r.Intercept}}...)
	for i, arg := range r.Args {
		where := "the command"
		if i > 0 {
			where = fmt.Sprintf("the command (argument %d)", i)
		}
		texts = append(texts, Text{Where: where, Text: arg})
	}
	for _, e := range r.Env {
		name, _, _ := strings.Cut(e, "=")
		texts = append(texts, Text{Where: "-e", Text: name}, Text{Where: "-e " + name, Text: e})
	}
	for flag, list := range map[string][]string{
		"-v": r.Volumes, "--connect-to": r.ConnectTo,
		"--dns-nameserver": r.Nameservers, "--tls-bypass": r.Bypass,
		"--tls-upstream-ca-cert": r.UpstreamCAs, "--tls-upstream-ca-cert-for": r.UpstreamCAFor,
	} {
		for _, text := range list {
			texts = append(texts, Text{Where: flag, Text: text})
		}
	}
	return append(texts, r.Also...)
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
