package config

import (
	"context"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/cutoutdev/cutout/internal/keeper"
)

// A Run is what the flags of cutout run say, unparsed. Its zero value is a
// sandbox without secrets.
type Run struct {
	Boundary

	Env      []string // NAME=VALUE, or NAME to take the caller's
	Dir      string
	User     string
	Memory   string
	CPUs     int
	Volumes  []string
	WeakCage bool
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
	return r.build(ctx, values, r.allTexts(),
		func(spec *keeper.Spec) error { return r.guest(spec, lookup) }, r.machine)
}

func (r Run) guest(spec *keeper.Spec, lookup func(string) (string, bool)) error {
	if err := each("env", r.Env, func(e string) error {
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
				return nil // as docker: a variable that the caller lacks is not set
			}
			e = name + "=" + value
		}
		spec.Guest.Env = append(spec.Guest.Env, e)
		return nil
	}); err != nil {
		return err
	}
	if r.Dir != "" && !path.IsAbs(r.Dir) {
		return In("workdir", r.Dir, fmt.Errorf("-w %q: the working directory must be absolute", r.Dir))
	}
	return nil
}

func (r Run) machine(spec *keeper.Spec) error {
	m := &spec.Machine
	m.MemoryMiB, m.CPUs, m.WeakCage = DefaultMemoryMiB, DefaultCPUs, r.WeakCage
	if r.Memory != "" {
		var err error
		if m.MemoryMiB, err = ParseMemory(r.Memory); err != nil {
			return In("memory", r.Memory, err)
		}
	}
	if r.CPUs < 0 || r.CPUs > maxCPUs {
		return In("cpus", strconv.Itoa(r.CPUs), fmt.Errorf("-c %d: a sandbox has 1 to %d CPUs", r.CPUs, maxCPUs))
	}
	if r.CPUs > 0 {
		m.CPUs = r.CPUs
	}
	return each("volume", r.Volumes, func(v string) error {
		volume, err := ParseVolume(v)
		m.Volumes = append(m.Volumes, volume)
		if err == nil && len(m.Volumes) > maxVolumes {
			err = fmt.Errorf("more than %d volumes", maxVolumes)
		}
		return err
	})
}

const (
	maxCPUs    = 64
	maxVolumes = 12 // the microvm board has 24 virtio slots; the rest is the machine's own
)

// allTexts lists all that the user wrote.
func (r Run) allTexts() []Text {
	texts := append(r.texts(), Text{Where: "-w", Text: r.Dir}, Text{Where: "-u", Text: r.User}, Text{Where: "-m", Text: r.Memory})
	for _, e := range r.Env {
		name, _, _ := strings.Cut(e, "=")
		texts = append(texts, Text{Where: "-e", Text: name}, Text{Where: "-e " + name, Text: e})
	}
	for _, v := range r.Volumes {
		texts = append(texts, Text{Where: "-v", Text: v})
	}
	return texts
}
