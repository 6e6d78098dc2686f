package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cutoutdev/cutout/internal/config"
	"github.com/cutoutdev/cutout/internal/term"
)

// dockerHints answer flags of docker run that cutout run does not have.
var dockerHints = map[string]string{
	"d":            "a sandbox runs in the foreground and ends with its command; use your shell's & or nohup",
	"detach":       "a sandbox runs in the foreground and ends with its command; use your shell's & or nohup",
	"name":         "sandboxes have IDs, and are gone when their command ends; see cutout audit",
	"rm":           "leave it out: a sandbox is always removed when its command ends",
	"P":            "name each port with -p HOST:GUEST",
	"publish-all":  "name each port with -p HOST:GUEST",
	"network":      "use --no-net for none, or --net and --net-rule; the default reaches public addresses only",
	"privileged":   "leave it out: the command is root in a machine of its own",
	"cap-add":      "leave it out: the command is root in a machine of its own",
	"cap-drop":     "name an ordinary user with -u",
	"entrypoint":   "give the whole command after --; an image's entry point runs only without one",
	"env-file":     "name the variables with -e NAME",
	"mount":        "use -v DIR:/PATH:ro",
	"volumes-from": "use -v DIR:/PATH:ro",
	"dns":          "use --dns-nameserver ADDR",
	"add-host":     "use --connect-to NAME:PORT=ADDR:PORT",
	"restart":      "a sandbox ends with its command",
	"cpuset-cpus":  "use -c N",
	"gpus":         "a sandbox has no devices of the host",
	"device":       "a sandbox has no devices of the host",
	"platform":     "a sandbox has the host's architecture",
	"pull":         "use cutout image pull",
	"l":            "sandboxes have no labels",
	"label":        "sandboxes have no labels",
	"h":            "a guest's host name is its sandbox's ID",
	"hostname":     "a guest's host name is its sandbox's ID",
}

// flagError makes a usage error of what pflag says, with advice if it is a
// flag that docker users reach for.
func flagError(cmd *cobra.Command, err error) error {
	// pflag's errors quote what a flag is set to, which may be a value.
	if invalid, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		return usageError{fmt.Errorf("invalid argument for --%s", invalid.GetFlag().Name)}
	}
	if _, ok := errors.AsType[*pflag.InvalidSyntaxError](err); ok {
		return usageError{errors.New("a flag without a name")}
	}
	unknown, ok := errors.AsType[*pflag.NotExistError](err)
	if !ok {
		return usageError{err}
	}
	name, shown := unknown.GetSpecifiedName(), "--"+unknown.GetSpecifiedName()
	if unknown.GetSpecifiedShortnames() != "" {
		shown = "-" + name
	}
	if hint := dockerHints[name]; hint != "" && cmd.Name() == "run" {
		return term.WithHint(usageError{fmt.Errorf("there is no flag %s", shown)}, "%s", hint)
	}
	bad := usageError{fmt.Errorf("unknown flag %s", shown)}
	if near := nearest(cmd, name); near != "" {
		return term.WithHint(bad, "did you mean --%s?", near)
	}
	return bad
}

// nearest returns the flag of cmd that name is probably meant to be, or "".
func nearest(cmd *cobra.Command, name string) string {
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	return config.Nearest(name, names)
}

// A listFlag is a flag that may be given several times. Its form is what
// help shows in place of a type.
type listFlag struct {
	list *[]string
	form string
}

func (f listFlag) Set(s string) error { *f.list = append(*f.list, s); return nil }
func (f listFlag) String() string     { return "" }
func (f listFlag) Type() string       { return f.form }

// A textFlag is a flag with one text.
type textFlag struct {
	text *string
	form string
}

func (f textFlag) Set(s string) error { *f.text = s; return nil }
func (f textFlag) String() string     { return "" }
func (f textFlag) Type() string       { return f.form }
