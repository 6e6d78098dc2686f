package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cutoutdev/cutout/internal/config"
	"github.com/cutoutdev/cutout/internal/keeper"
	"github.com/cutoutdev/cutout/internal/source/file"
	"github.com/cutoutdev/cutout/internal/source/helper"
	"github.com/cutoutdev/cutout/internal/state"
	"github.com/cutoutdev/cutout/internal/tap"
	"github.com/cutoutdev/cutout/internal/term"
	"github.com/cutoutdev/cutout/internal/workload"
)

// A commandPlug is a command of this machine.
type commandPlug struct {
	app      *app
	options  boundaryOptions
	user     workloadUser
	requests []helper.Request // where the values come from
	environ  []string
	config   workload.Config
	w        *workload.Workload
}

// newCommandPlug makes the namespaces of the command.
func (a *app) newCommandPlug(ctx context.Context, o boundaryOptions, home state.Home, values *helper.Client, notice func(string)) (plug, error) {
	user, err := lookupWorkloadUser(o.User)
	if err != nil {
		return nil, err
	}
	p := &commandPlug{app: a, options: o, user: user, requests: values.Requests()}
	var dropped []string
	p.environ, dropped = workloadEnviron(os.Environ(), p.requests, user)
	if err := values.Check(ctx, environTexts(p.environ)); err != nil {
		return nil, err
	}
	if p.config.Dir, err = filepath.Abs(o.Dir); err != nil {
		return nil, fmt.Errorf("find the working directory: %w", err)
	}
	p.config.Hide = hidden(home, p.requests)
	for _, text := range p.warnings(dropped) {
		notice(text)
	}
	p.w, err = workload.New(ctx, workload.Options{UID: user.UID, GID: user.GID, Stdin: a.stdin, Stdout: a.stdout, Stderr: a.stderr})
	return p, workloadError(err)
}

// warnings say what is weaker than a machine's isolation.
func (p *commandPlug) warnings(dropped []string) []string {
	out := []string{fmt.Sprintf("weaker isolation: no machine; the command runs on this kernel, as %s, and can use the files that %[1]s can", p.user.Name)}
	for _, r := range p.requests {
		if r.Scheme == "exec" || r.Scheme == "vault" || r.Scheme == "age" {
			out = append(out, fmt.Sprintf("the value of %s comes from %s: see to it that %s cannot get it there too", r.Name, r.Scheme, p.user.Name))
		}
	}
	if len(dropped) > 0 {
		out = append(out, fmt.Sprintf("%s: not for the command, which reaches no proxy past the boundary", strings.Join(dropped, ", ")))
	}
	return out
}

// hidden lists what the command must not see: Cutout's own directories, the
// user's sockets, and the files that hold values.
func hidden(home state.Home, requests []helper.Request) []string {
	dirs := []string{home.Data, home.Runtime}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		dirs = append(dirs, filepath.Clean(dir))
	}
	own, _ := os.UserHomeDir()
	for _, r := range requests {
		if r.Scheme != "file" {
			continue
		}
		if path, err := filepath.Abs(file.Expand(r.Ref, own)); err == nil {
			dirs = append(dirs, path)
		}
	}
	return dirs
}

func (p *commandPlug) link() (*os.File, keeper.LinkKind) { return p.w.Tap(), keeper.LinkTap }

func (p *commandPlug) prepare(keeper.Workload) error { return nil }

func (p *commandPlug) close() { p.w.Kill() }

// serve runs the command and passes on terminal and signals.
func (p *commandPlug) serve(ctx context.Context, relay *relay, about keeper.Workload) error {
	mac, addrs, err := addresses(about, true)
	if err != nil {
		return err
	}
	c := p.config
	c.Args, c.Umask = p.options.Args, callerUmask
	c.Env = withPlaceholders(p.environ, p.requests, about.Env)
	c.MAC, c.MTU, c.Addresses = mac, about.MTU, addrs
	c.CA, c.Roots = about.CA, keeper.Roots()
	a := p.app
	bothTerminals := term.IsTerminal(a.stdin) && term.IsTerminal(a.stdout)
	if c.TTY = p.options.TTY || bothTerminals && !p.options.NoTTY; c.TTY {
		size := term.SizeOf(a.stdout)
		c.Rows, c.Cols = size.Rows, size.Cols
	}
	tty, err := p.w.Start(ctx, c)
	if exit, ok := errors.AsType[*workload.Exit](err); ok {
		return commandStatus(*exit, c.Args[0])
	}
	if err != nil {
		return workloadError(err)
	}
	relay.to(p.w)
	if tty != nil {
		done, err := a.relayTerminal(ctx, tty)
		if err != nil {
			return err
		}
		defer done()
	}
	exit, err := p.w.Wait(ctx)
	if err != nil {
		return err
	}
	return commandStatus(exit, c.Args[0])
}

func commandStatus(e workload.Exit, name string) error {
	return exitStatus(keeper.Exit{Code: e.Code, NotFound: e.NotFound, NotExecutable: e.NotExecutable}, name, "")
}

// relayTerminal connects the command's terminal with the caller's streams.
// The returned function waits for the rest of the output.
func (a *app) relayTerminal(ctx context.Context, tty *os.File) (done func(), err error) {
	restore := func() {}
	if term.IsTerminal(a.stdin) {
		if restore, err = a.out.Raw(a.stdin); err != nil {
			tty.Close()
			return nil, err
		}
	}
	watch, stop := context.WithCancel(ctx)
	term.WatchSize(watch, a.stdout, func(s term.Size) { setTerminalSize(tty, s) })
	go io.Copy(tty, a.stdin)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		io.Copy(a.stdout, tty) // ends with EIO, when no process has it open
	}()
	return func() {
		select {
		case <-ended:
		case <-time.After(time.Second): // a caller that does not read
		}
		stop()
		tty.Close()
		restore()
	}, nil
}

// workloadError turns what kept a command from starting into an error with
// its hint.
func workloadError(err error) error {
	if f, ok := errors.AsType[*workload.Failure](err); ok && f.Hint != "" {
		return term.WithHint(err, "%s", f.Hint)
	}
	return err
}

// addresses are those of the workload's interface.
func addresses(w keeper.Workload, route bool) (net.HardwareAddr, []tap.Address, error) {
	mac, err := net.ParseMAC(w.MAC)
	if err != nil {
		return nil, nil, fmt.Errorf("configure interface: %w", err)
	}
	list := []tap.Address{{Prefix: w.Guest4, Gateway: w.Gateway4}, {Prefix: w.Guest6, Gateway: w.Gateway6}}
	for i := range list {
		list[i].Route = route
	}
	return mac, list, nil
}

// Variables that mean something outside only: sockets that the command does
// not see, and directories for its own of which there is another.
var outsideOnly = []string{
	"XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "SSH_AUTH_SOCK", "SSH_AGENT_PID", "GPG_AGENT_INFO", "TMUX", "TMUX_PANE", "STY",
	"DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "TMPDIR",
}

// proxies are the variables that name proxies.
var proxies = []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "FTP_PROXY", "NO_PROXY"}

// workloadEnviron is environ for a command of user: without the variables
// that hold values or lead to them. Dropped are the proxies that were named
// in it.
func workloadEnviron(environ []string, requests []helper.Request, user workloadUser) (env, dropped []string) {
	for _, e := range environ {
		name, _, _ := strings.Cut(e, "=")
		switch {
		case slices.ContainsFunc(requests, func(r helper.Request) bool { return leads(r, name) }):
		case slices.Contains(outsideOnly, name):
		case slices.Contains(proxies, strings.ToUpper(name)):
			dropped = append(dropped, name)
		default:
			env = append(env, e)
		}
	}
	if user.Changed {
		for name, value := range map[string]string{"HOME": user.Home, "USER": user.Name, "LOGNAME": user.Name} {
			env = setVariable(env, name, value)
		}
	}
	for _, e := range workload.Trust() {
		name, value, _ := strings.Cut(e, "=")
		env = setVariable(env, name, value)
	}
	return env, dropped
}

// leads reports whether a variable holds the value that r asks for, or what
// it is got with.
func leads(r helper.Request, name string) bool {
	return r.Scheme == "env" && r.Ref == name || r.Scheme == "vault" && name == "VAULT_TOKEN"
}

func environTexts(environ []string) []config.Text {
	var texts []config.Text
	for _, e := range environ {
		name, _, _ := strings.Cut(e, "=")
		texts = append(texts, config.Text{Where: "your variable " + name, Text: e})
	}
	return texts
}

// withPlaceholders sets the secrets' variables, and those that their values
// came from, to the placeholders.
func withPlaceholders(env []string, requests []helper.Request, placeholders []string) []string {
	env = slices.Clone(env)
	for _, p := range placeholders {
		name, text, _ := strings.Cut(p, "=")
		env = setVariable(env, name, text)
		for _, r := range requests {
			if r.Name == name && r.Scheme == "env" {
				env = setVariable(env, r.Ref, text)
			}
		}
	}
	return env
}

func setVariable(env []string, name, value string) []string {
	env = slices.DeleteFunc(env, func(e string) bool { return strings.HasPrefix(e, name+"=") })
	return append(env, name+"="+value)
}
