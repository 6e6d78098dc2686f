package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/cutoutdev/cutout/internal/config"
	"github.com/cutoutdev/cutout/internal/keeper"
	"github.com/cutoutdev/cutout/internal/source/helper"
	"github.com/cutoutdev/cutout/internal/state"
	"github.com/cutoutdev/cutout/internal/term"
)

// boundaryOptions are the flags of cutout boundary.
type boundaryOptions struct {
	config.Boundary
	workloadOptions
	Dir     string
	User    string
	Tap     string
	Netns   string
	Unix    string
	Listen  string
	EnvFile string
	CAFile  string
}

func (a *app) boundaryCommand() *cobra.Command {
	var o boundaryOptions
	cmd := &cobra.Command{
		Use:   "boundary [flags] {-- CMD… | --tap NAME | --unix PATH | --listen PORT}",
		Short: "Put the boundary around a workload that is no machine of Cutout's",
		Long: `Boundary gives a workload the one network interface of a sandbox, with the same
secrets, rules and audit log as cutout run, but without a microVM:

  -- CMD      a command of this machine, in user, process, mount, IPC and network
              namespaces of its own, without capabilities or a way to get any. It
              sees neither other processes nor Cutout's directories, has a /run
              and a /tmp of its own, and in place of the variables that are
              secrets their placeholders. Its isolation is weaker than a
              machine's: it runs on this kernel, and what it may read and write
              among your files it can. Started by root it runs as the user who
              called sudo, as --user says, or as nobody.
  --tap NAME  a network namespace, such as that of docker run --network none: the
              interface NAME with addresses and a default route is made there
              (--netns), and removed in the end.
  --unix PATH a virtual machine: a socket for QEMU's -netdev stream, and what else
              speaks its framing, such as passt's users. One peer may connect, of
              your own user; the boundary ends when it goes.
  --listen PORT programs that take a proxy: HTTP CONNECT and SOCKS5, at a port of
              the loopback or at ADDR:PORT, for whoever has the credential of this
              run, which --env-file tells. Nothing keeps such a program from going
              around the proxy: it has no value then, and no rules either.

--env-file and --ca-file write what such a workload needs to know: the
placeholders, the variables that programs find certificates by, the addresses
(CUTOUT_ADDRESS4 and the like), and the certificates. When --env-file is there
the boundary is ready. Both are gone when it ends.

--conf reads a file as cutout run does, but for what only a machine has: image,
env, memory, cpus, volume, copy, no-snapshot and weak-cage.

` + rulesHelp + `

` + networkHelp + `

Exit status: that of CMD; 124 when --timeout ended it; 125 when Cutout failed
or the command line is wrong; 126 when CMD cannot be executed; 127 when it is
not found; 128+N when signal N ended it, or the boundary.`,
		Example: `  API_KEY=… cutout boundary --secret API_KEY@api.example.com -- \
    sh -c 'curl -sS -H "Authorization: Bearer $API_KEY" https://api.example.com/'

  cutout boundary --secret GITHUB_TOKEN -- ./agent

  docker run -d --name job --network none --env-file job.env -v $PWD/ca.pem:$PWD/ca.pem:ro IMAGE
  cutout boundary --secret API_KEY@api.example.com --env-file job.env --ca-file ca.pem \
    --tap eth0 --netns $(docker inspect -f '{{.State.Pid}}' job)

  cutout boundary --secret API_KEY@api.example.com --env-file vm.env --unix vm.sock &
  qemu-system-x86_64 … -netdev stream,id=n,addr.type=unix,addr.path=vm.sock,server=off \
    -device virtio-net,netdev=n,mac=02:00:00:00:00:02`,
		Annotations: map[string]string{failStatus: "125"},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 && cmd.ArgsLenAtDash() != 0 {
				err := usageError{fmt.Errorf("the command must follow --")}
				return term.WithHint(err, "write cutout boundary FLAG… -- CMD…")
			}
			o.Args = args
			if err := o.configure(cmd.Flags()); err != nil {
				return usageError{err}
			}
			return a.boundary(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	o.bindConf(cmd)
	bindBoundary(cmd, &o.Boundary)
	bindPublish(cmd, &o.Published)
	f.VarP(textFlag{&o.Dir, "DIR"}, "workdir", "w", "working directory of CMD (default yours)")
	f.VarP(textFlag{&o.User, "USER[:GROUP]"}, "user", "u", "user of CMD, by name or number; for root only")
	f.DurationVar(&o.Timeout, "timeout", 0, "end the boundary after this long, such as 5m")
	f.BoolVarP(&o.TTY, "tty", "t", false, "give CMD a terminal of its own")
	f.BoolVarP(&o.NoTTY, "no-tty", "T", false, "give CMD your streams as they are")
	f.BoolVarP(&o.Quiet, "quiet", "q", false, "no notices and refusals on standard error")
	f.Var(textFlag{&o.Tap, "NAME"}, "tap", "make a network interface for a network namespace")
	f.Var(textFlag{&o.Netns, "PATH|PID"}, "netns", "the network namespace for --tap (default this one, without a default route)")
	f.Var(textFlag{&o.Unix, "PATH"}, "unix", "make a socket that a virtual machine is plugged into")
	f.Var(textFlag{&o.Listen, "[ADDR:]PORT"}, "listen", "serve programs that take a proxy, at 127.0.0.1 unless ADDR is given")
	f.Var(textFlag{&o.EnvFile, "FILE"}, "env-file", "write the variables that the workload needs, one NAME=VALUE a line")
	f.Var(textFlag{&o.CAFile, "FILE"}, "ca-file", "write the certificates that the workload is to trust")
	return cmd
}

// A plug is what makes one kind of workload.
type plug interface {
	// link returns the keeper's end, which the caller does not close.
	link() (*os.File, keeper.LinkKind)
	// prepare is told about the boundary, before the workload is.
	prepare(w keeper.Workload) error
	// serve is told about the boundary, and returns when the workload, or
	// ctx, has ended.
	serve(ctx context.Context, relay *relay, w keeper.Workload) error
	close()
}

func (o boundaryOptions) check() error {
	forms := 0
	for _, given := range []bool{len(o.Args) > 0, o.Tap != "", o.Unix != "", o.Listen != ""} {
		if given {
			forms++
		}
	}
	switch {
	case forms == 0:
		return term.WithHint(usageError{errors.New("there is no workload")}, "write cutout boundary FLAG… -- CMD…, or use --tap, --unix or --listen")
	case forms > 1:
		return usageError{errors.New("-- CMD, --tap, --unix and --listen exclude each other")}
	case o.TTY && o.NoTTY:
		return usageError{errors.New("-t and -T exclude each other")}
	case o.Listen != "" && o.EnvFile == "":
		return term.WithHint(usageError{errors.New("--listen needs --env-file")}, "it is written with the credential, which nobody could know otherwise")
	case o.Timeout < 0:
		return usageError{errors.New("--timeout must not be negative")}
	case o.Listen != "" && len(o.Published) > 0:
		return usageError{errors.New("-p needs a network interface, which programs at --listen have none of")}
	case o.Netns != "" && o.Tap == "":
		return usageError{errors.New("--netns needs --tap")}
	case len(o.Args) == 0 && (o.Dir != "" || o.User != "" || o.TTY || o.NoTTY):
		return usageError{errors.New("-w, -u, -t and -T need a command")}
	}
	return nil
}

// boundary finds out first what can go wrong without a value being read.
func (a *app) boundary(ctx context.Context, o boundaryOptions) error {
	if o.Quiet {
		a.out.Quiet()
	}
	if err := o.check(); err != nil {
		return err
	}
	for where, text := range map[string]string{
		"-w": o.Dir, "-u": o.User, "--tap": o.Tap, "--netns": o.Netns, "--unix": o.Unix, "--listen": o.Listen, "--env-file": o.EnvFile, "--ca-file": o.CAFile,
	} {
		o.Also = append(o.Also, config.Text{Where: where, Text: text})
	}
	relay, ctx := newRelay(ctx)
	defer relay.stop()
	notice := func(text string) { a.tell(keeper.Message{Notice: text}, o.Quiet) }
	values := &helper.Client{Notice: notice}
	defer values.Close()
	if err := o.TakeEnvironment(os.LookupEnv, notice); err != nil {
		return usageError{err}
	}
	spec, err := o.Build(ctx, values)
	if err != nil {
		return relay.cause(usageError{o.places.Locate(err)})
	}
	for _, w := range spec.Warnings() {
		notice(w)
	}
	home, err := state.Default()
	if err != nil {
		return err
	}
	if err := home.Sweep(state.KeepLogs); err != nil {
		return err
	}
	var p plug
	switch {
	case o.Tap != "":
		p, err = newTapPlug(o)
	case o.Unix != "":
		p, err = newUnixPlug(o.Unix)
	case o.Listen != "":
		p, err = newListenPlug(o.Listen, notice)
	default:
		p, err = a.newCommandPlug(ctx, o, home, values, notice)
	}
	if err != nil {
		return relay.cause(err)
	}
	defer p.close()
	return a.plugIn(ctx, relay, home, p, boundaryRun{spec, values, o})
}

// A boundaryRun is one boundary with its one workload.
type boundaryRun struct {
	spec    keeper.Spec
	values  *helper.Client
	options boundaryOptions
}

// plugIn starts a keeper for the workload and takes everything down again,
// however it ends.
func (a *app) plugIn(ctx context.Context, relay *relay, home state.Home, p plug, r boundaryRun) (err error) {
	place, err := home.New()
	if err != nil {
		return err
	}
	if u, ok := p.(*unixPlug); ok {
		if err := place.Leave(u.path); err != nil {
			return errors.Join(err, place.Remove())
		}
	}
	r.spec.ID = place.ID
	r.spec.Dirs = keeper.Dirs{Runtime: place.Runtime, State: place.Dir}
	link, kind := p.link()
	r.spec.Link = kind

	notices := newNotices(a.out, r.spec.Secrets)
	var about keeper.Workload
	sandbox, err := startKeeper(ctx, r.spec, r.values, link, func(m keeper.Message) {
		switch {
		case m.Workload != nil:
			about = *m.Workload
		case m.Event == nil:
			a.tell(m, r.options.Quiet)
		case !r.options.Quiet:
			notices.observe(*m.Event)
		}
	})
	link.Close()
	if err != nil {
		return a.notStarted(relay, place, err)
	}
	defer func() {
		why := sandbox.End()
		removeMetrics(r.spec.Metrics)
		if errors.Is(err, errBoundaryEnded) {
			err = endedError(why)
			if why == keeper.Unplugged {
				err = nil
			}
		}
		if err != nil && !errors.As(err, new(*exitError)) {
			err = term.WithHint(err, "cutout audit %s says what happened", place.ID)
		}
		if !r.options.Quiet {
			notices.end()
			a.tellLogEnd(sandbox, r.spec)
		}
		err = errors.Join(err, place.End())
	}()
	if err := p.prepare(about); err != nil {
		return err
	}
	if len(r.options.Args) == 0 && !r.options.Quiet {
		a.tell(keeper.Message{Notice: fmt.Sprintf("this is boundary %s: cutout net %[1]s shows its connections", place.ID)}, false)
	}
	remove, err := writeWorkloadFiles(r.options, p, about, place)
	defer remove()
	if err != nil {
		return err
	}
	go func() {
		<-sandbox.Done()
		relay.end(errBoundaryEnded)
	}()
	if r.options.Timeout > 0 {
		t := time.AfterFunc(r.options.Timeout, func() { relay.end(errTimeout(r.options.Timeout)) })
		defer t.Stop()
	}
	return relay.cause(p.serve(ctx, relay, about))
}

// errBoundaryEnded is the end of the keeper before that of its workload.
var errBoundaryEnded = errors.New("the boundary ended before its workload")
