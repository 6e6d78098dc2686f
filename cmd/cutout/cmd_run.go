package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cutoutdev/cutout/internal/config"
	"github.com/cutoutdev/cutout/internal/image"
	"github.com/cutoutdev/cutout/internal/keeper"
	"github.com/cutoutdev/cutout/internal/source/helper"
	"github.com/cutoutdev/cutout/internal/state"
	"github.com/cutoutdev/cutout/internal/term"
)

// runOptions are the flags of cutout run.
type runOptions struct {
	config.Run
	workloadOptions
	Image  string
	Copies []string
	Boot   bool // not from a snapshot
}

func (a *app) runCommand() *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run [flags] [IMAGE] [-- CMD…]",
		Short: "Run a command in a microVM that holds no credential",
		Long: `Run starts a microVM from IMAGE, runs CMD in it and removes it when CMD ends.
IMAGE is the name of an imported image or a reference to one in a registry;
without it the default image is used. Without CMD the image's own command runs.

For each --secret the guest's environment variable NAME holds a placeholder.
The value is read from the variable NAME of your own environment, or from
where you say, and goes into requests to the named hosts only: HTTPS, to an address that the sandbox
resolved, from a server whose certificate is right for the name. Use single
quotes around CMD, so that the guest's shell expands $NAME and not yours.

A request whose placeholder may not be swapped is refused, and the first
refusal of each kind is shown here; cutout audit shows all of them.

` + rulesHelp + `

` + networkHelp + `

--conf reads a file of the same grammar, in which each flag is a key; a flag
replaces what the file says under its name. No file is read unless it is named.
cutout conf schema describes one.

Standard input is always connected. The command gets a terminal when standard
input and output are terminals.

Exit status: that of CMD; 124 when --timeout ended it; 125 when Cutout failed
or the command line is wrong; 126 when CMD cannot be executed; 127 when it is
not found; 128+N when signal N ended it.`,
		Example: `  cutout run -- uname -a

  API_KEY=… cutout run --secret API_KEY@api.example.com -- \
    sh -c 'curl -sS -H "Authorization: Bearer $API_KEY" https://api.example.com/'

  cutout run --secret GITHUB_TOKEN@api.github.com,github.com --copy .:/src -w /src \
    docker.io/library/golang:1.26 -- go test ./...

  cutout run --secret TOKEN@api.example.com --surface TOKEN=query,body:/auth/token \
    --scope TOKEN='GET /v1/**' --scope TOKEN='POST /login' -- ./agent

  cutout run -p 8080:80 -- python3 -m http.server 80

  cutout run --conf cutout.yaml -m 2g

  cutout run --no-net -v ./data:/data:ro --timeout 5m -- python3 /data/untrusted.py`,
		Annotations:       map[string]string{failStatus: "125"},
		ValidArgsFunction: completeRun,
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if o.Image, o.Args, err = splitRunArgs(args, cmd.ArgsLenAtDash()); err != nil {
				return err
			}
			if err = o.configure(cmd.Flags()); err != nil {
				return usageError{err}
			}
			return a.run(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.SetInterspersed(false) // what follows IMAGE is the command's
	o.bindConf(cmd)
	bindBoundary(cmd, &o.Boundary)
	f.VarP(listFlag{&o.Env, "NAME[=VALUE]"}, "env", "e", "set a variable in the guest; without VALUE, to yours")
	f.VarP(textFlag{&o.Dir, "DIR"}, "workdir", "w", "working directory in the guest")
	f.VarP(textFlag{&o.User, "USER[:GROUP]"}, "user", "u", "user in the guest, by name or number")
	f.VarP(textFlag{&o.Memory, "SIZE"}, "memory", "m", fmt.Sprintf("memory, 512m or 2g (default %dm)", config.DefaultMemoryMiB))
	f.IntVarP(&o.CPUs, "cpus", "c", 0, fmt.Sprintf("number of CPUs (default %d)", config.DefaultCPUs))
	f.VarP(listFlag{&o.Volumes, "DIR:/PATH:ro"}, "volume", "v", "give the guest a read-only copy of a directory")
	bindPublish(cmd, &o.Published)
	f.Var(listFlag{&o.Copies, "SRC:/DST"}, "copy", "copy a file or directory into the guest before CMD")
	f.DurationVar(&o.Timeout, "timeout", 0, "end the sandbox when CMD has run for this long, such as 5m")
	f.BoolP("interactive", "i", false, "accepted for docker's sake: standard input is always connected")
	f.BoolVarP(&o.TTY, "tty", "t", false, "give the command a terminal")
	f.BoolVarP(&o.NoTTY, "no-tty", "T", false, "give the command no terminal")
	f.BoolVarP(&o.Quiet, "quiet", "q", false, "no progress, notices and refusals on standard error")
	f.BoolVar(&o.Boot, "no-snapshot", false, "boot the machine, where it could start from one that has booted before")
	f.BoolVar(&o.WeakCage, "weak-cage", false, "start even where QEMU cannot be confined; an escape then reaches the values")
	return cmd
}

// splitRunArgs finds image and command in what follows the flags; dash is
// where "--" ended the flags, -1 if it did not.
func splitRunArgs(args []string, dash int) (img string, command []string, err error) {
	if dash == 0 || len(args) == 0 {
		return "", args, nil
	}
	img, rest := args[0], args[1:]
	switch {
	case img == "":
		return "", nil, usageError{errors.New("the image's name is empty")}
	case len(rest) == 0:
		return img, nil, nil
	case rest[0] == "--":
		return img, rest[1:], nil
	case strings.HasPrefix(rest[0], "-"):
		err := usageError{fmt.Errorf("%s follows the image, where the command begins", flagName(rest[0]))}
		return "", nil, term.WithHint(err, "write cutout run FLAG… IMAGE -- CMD…")
	}
	return img, rest, nil
}

// flagName is a flag without what it is set to, which may be a value.
func flagName(arg string) string {
	if !strings.HasPrefix(arg, "--") {
		return arg[:min(len(arg), 2)] // -eNAME=VALUE
	}
	name, _, _ := strings.Cut(arg, "=")
	return name
}

func completeRun(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return completeImages(), cobra.ShellCompDirectiveNoFileComp
}

// run prepares the sandbox in the order in which mistakes are cheap: what
// the user wrote, then what the machine has, then what takes time.
func (a *app) run(ctx context.Context, o runOptions) error {
	if o.Quiet {
		a.out.Quiet()
	}
	if o.TTY && o.NoTTY {
		return usageError{errors.New("-t and -T exclude each other")}
	}
	if o.Timeout < 0 {
		return usageError{errors.New("--timeout must not be negative")}
	}
	o.Also = append(o.Also, config.Text{Where: "the image's name", Text: o.Image})
	for _, c := range o.Copies {
		o.Also = append(o.Also, config.Text{Where: "--copy", Text: c})
	}
	// The source helper is told by a context, the command by the signal itself.
	relay, ctx := newRelay(ctx)
	defer relay.stop()
	values := &helper.Client{Notice: func(text string) { a.tell(keeper.Message{Notice: text}, o.Quiet) }}
	defer values.Close()
	if err := o.TakeEnvironment(os.LookupEnv, values.Notice); err != nil {
		return usageError{err}
	}
	spec, err := o.Build(ctx, os.LookupEnv, values)
	if err != nil {
		return relay.cause(usageError{o.places.Locate(err)})
	}
	for _, w := range spec.Warnings() {
		a.tell(keeper.Message{Notice: w}, o.Quiet)
	}
	copies, err := parseCopies(o.Copies)
	if err != nil {
		return o.places.Locate(err)
	}
	if err := values.Check(ctx, copiedTexts(copies)); err != nil {
		return err
	}
	home, err := state.Default()
	if err != nil {
		return err
	}
	if err := home.Sweep(state.KeepLogs); err != nil {
		return err
	}
	if spec.Machine.Kernel, spec.Machine.Initrd, err = guestMachine(home); err != nil {
		return err
	}
	img, err := a.findImage(ctx, home, o.Image)
	if err != nil {
		return relay.cause(o.places.Locate(config.In("image", o.Image, err)))
	}
	command, err := guestCommand(img, o)
	if err != nil {
		return err
	}
	if err := values.Check(ctx, imageTexts(img)); err != nil {
		return err
	}
	spec.Machine.Disk = img.Disk
	if !o.Boot {
		spec.Machine.Snapshots = home.Snapshots()
	}
	spec.Guest.Env = append(append([]string(nil), img.Config.Env...), spec.Guest.Env...)
	return a.runSandbox(ctx, relay, home, sandboxRun{spec, values, command, copies, o})
}

// findImage returns the image that the user named, or the default one.
func (a *app) findImage(ctx context.Context, home state.Home, name string) (image.Image, error) {
	store := image.Store{Dir: home.Images()}
	defer a.out.Progress("", 0, 0)
	if name == "" {
		img, err := lookupDefault(ctx, &store, a.out.Progress)
		if errors.Is(err, image.ErrNotFound) {
			return img, term.WithHint(errors.New("there is no default image"), "run cutout setup, or name an image")
		}
		return img, imageHint(err, defaultImage)
	}
	find := store.Lookup
	if looksLikeReference(name) { // else a damaged image would be replaced by a stranger's of its name
		find = store.Ensure
	}
	img, err := find(ctx, name, a.out.Progress)
	return img, imageHint(err, name)
}

// looksLikeReference tells an image in a registry from a name that was never
// imported: only the former has a registry, a path or a tag.
func looksLikeReference(name string) bool { return strings.ContainsAny(name, "/:@.") }

// guestCommand is what docker would run: the user's command after the
// image's entry point, or the image's own.
func guestCommand(img image.Image, o runOptions) (keeper.Command, error) {
	c := keeper.Command{Dir: o.Dir, User: o.User}
	args := o.Args
	if len(args) == 0 {
		args = img.Config.Cmd
	}
	c.Args = append(append([]string(nil), img.Config.Entrypoint...), args...)
	if len(c.Args) == 0 && img.Name == defaultImage {
		c.Args = []string{"/bin/bash"}
	}
	if len(c.Args) == 0 {
		return c, term.WithHint(usageError{fmt.Errorf("image %s has no command of its own", img.Name)}, "write cutout run … -- CMD")
	}
	if c.Dir == "" {
		c.Dir = img.Config.WorkingDir
	}
	if c.User == "" {
		c.User = img.Config.User
	}
	return c, nil
}

// imageTexts lists what the image says about its process: an image built with
// a credential would hand it to the guest.
func imageTexts(img image.Image) []config.Text {
	var texts []config.Text
	for _, e := range img.Config.Env {
		name, _, _ := strings.Cut(e, "=")
		texts = append(texts, config.Text{Where: "the image's variable " + name, Text: e})
	}
	for _, arg := range append(img.Config.Entrypoint, img.Config.Cmd...) {
		texts = append(texts, config.Text{Where: "the image's command", Text: arg})
	}
	return texts
}

// imageHint adds what can be done about an error of the image store.
func imageHint(err error, name string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, image.ErrNotFound):
		return term.WithHint(err, "import it with cutout image import %s PATH, or name one in a registry, such as docker.io/library/%[1]s", name)
	case errors.Is(err, image.ErrCorrupt):
		if name == defaultImage {
			return term.WithHint(err, "make it anew with cutout image rm %s and cutout setup", name)
		}
		return term.WithHint(err, "import or pull it again; see cutout image --help")
	case errors.Is(err, image.ErrNoSpace):
		return term.WithHint(err, "free some space, or remove images with cutout image rm")
	case errors.Is(err, fs.ErrNotExist):
		return term.WithHint(err, "check the path")
	}
	return err
}
