package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/keeper"
	"github.com/cutoutdev/cutout/internal/source/helper"
	"github.com/cutoutdev/cutout/internal/state"
	"github.com/cutoutdev/cutout/internal/term"
)

// A sandboxRun is one sandbox with the one command that it is for.
type sandboxRun struct {
	spec    keeper.Spec
	values  *helper.Client
	command keeper.Command
	copies  []copySpec
	options runOptions
}

// runSandbox starts the sandbox, runs the command and takes everything down
// again, however it ends.
func (a *app) runSandbox(ctx context.Context, relay *relay, home state.Home, r sandboxRun) (err error) {
	place, err := home.New()
	if err != nil {
		return err
	}
	r.spec.ID, r.spec.Guest.Hostname = place.ID, place.ID
	r.spec.Dirs = keeper.Dirs{Runtime: place.Runtime, State: place.Dir}

	notices := newNotices(a.out, r.spec.Secrets)
	started := a.out.Stage("starting the sandbox")
	sandbox, err := startKeeper(ctx, r.spec, r.values, nil, func(m keeper.Message) { a.tell(m, r.options.Quiet) })
	started()
	if err != nil {
		return a.notStarted(relay, place, err)
	}
	defer func() {
		why := sandbox.End()
		removeMetrics(r.spec.Metrics)
		if errors.Is(err, keeper.ErrKeeperGone) || errors.Is(err, keeper.ErrSandboxFailed) && why != "" {
			err = endedError(why)
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
	for _, c := range r.copies {
		if err := a.copyIn(ctx, sandbox.Client, c); err != nil {
			return relay.cause(err)
		}
	}
	observe := notices.observe
	if r.options.Quiet {
		observe = nil
	}
	exit, err := a.runCommandIn(ctx, relay, sandbox, r, observe)
	if err != nil {
		return relay.cause(err)
	}
	return exitStatus(exit, r.command.Args[0], " in the guest")
}

// notStarted takes down what a keeper that did not start has left.
func (a *app) notStarted(relay *relay, place *state.Sandbox, err error) error {
	if crash, ok := errors.AsType[*keeper.CrashError](err); ok && relay.cause(err) == err {
		return errors.Join(term.WithHint(err, "report this with %s", crash.Log), place.End())
	}
	return relay.cause(errors.Join(keeperError(err), place.Remove()))
}

// startKeeper starts a keeper that gets its values from the source helper.
func startKeeper(ctx context.Context, spec keeper.Spec, held *helper.Client, link *os.File, tell func(keeper.Message)) (*keeper.Sandbox, error) {
	values, err := held.HandOver(ctx)
	if err != nil {
		return nil, err
	}
	if values != nil {
		defer values.Close()
	}
	spec.Version = versionText()
	asked, at, err := openMetrics(spec.Metrics)
	if err != nil {
		return nil, err
	}
	if asked != nil {
		defer asked.Close()
		spec.Metrics = at
		tell(metricsNotice(at))
	}
	sandbox, err := keeper.Start(ctx, spec, keeper.Files{Values: values, Link: link, Metrics: asked}, tell)
	if err != nil {
		removeMetrics(at)
	}
	return sandbox, err
}

// tell shows what the keeper says while it starts and works.
func (a *app) tell(m keeper.Message, quiet bool) {
	switch {
	case quiet:
	case m.Progress != nil:
		a.out.Progress(m.Progress.Stage, m.Progress.Done, m.Progress.Total)
	case m.Notice != "":
		a.out.Printf("cutout: %s", term.Escape(m.Notice))
	}
}

// tellLogEnd prints what proves the audit log of a sandbox with secrets.
func (a *app) tellLogEnd(sandbox *keeper.Sandbox, spec keeper.Spec) {
	if end := sandbox.LogEnd(); end != nil && len(spec.Secrets) > 0 {
		a.out.Printf("cutout: audit log %s: %d lines, head %s", spec.ID, end.Lines, end.Head)
	}
}

// runCommandIn runs the command and passes on streams, terminal and signals
// until it has ended.
func (a *app) runCommandIn(ctx context.Context, relay *relay, sandbox *keeper.Sandbox, r sandboxRun, observe func(audit.Event)) (keeper.Exit, error) {
	cmd := r.command
	bothTerminals := term.IsTerminal(a.stdin) && term.IsTerminal(a.stdout)
	cmd.TTY = r.options.TTY || bothTerminals && !r.options.NoTTY
	if cmd.TTY {
		size := term.SizeOf(a.stdout)
		cmd.Rows, cmd.Cols = size.Rows, size.Cols
		if term.IsTerminal(a.stdin) {
			restore, err := a.out.Raw(a.stdin)
			if err != nil {
				return keeper.Exit{}, err
			}
			defer restore()
		}
	}
	proc, err := sandbox.Start(ctx, cmd, keeper.IO{Stdin: a.stdin, Stdout: a.stdout, Stderr: a.stderr, Events: observe})
	if err != nil {
		return keeper.Exit{}, err
	}
	relay.to(proc)
	if cmd.TTY {
		watch, stop := context.WithCancel(ctx)
		defer stop()
		term.WatchSize(watch, a.stdout, func(s term.Size) { proc.Resize(s.Rows, s.Cols) })
	}
	if r.options.Timeout > 0 {
		t := time.AfterFunc(r.options.Timeout, func() { relay.end(errTimeout(r.options.Timeout)) })
		defer t.Stop()
	}
	return proc.Wait()
}

func errTimeout(d time.Duration) error {
	return &exitError{exitTimeout, fmt.Errorf("the command ran for %v, its --timeout, and was ended", d)}
}

// exitStatus turns the way in which the command ended into ours. Where says
// where it ran.
func exitStatus(e keeper.Exit, name, where string) error {
	switch {
	case e.NotFound:
		err := fmt.Errorf("run %s: not found%s", name, where)
		return &exitError{e.Code, term.WithHint(err, "check the name; a shell's words need sh -c '…'")}
	case e.NotExecutable:
		return &exitError{e.Code, fmt.Errorf("run %s: cannot be executed%s", name, where)}
	case e.Reason != "":
		return &exitError{e.Code, fmt.Errorf("run %s%s: %s", name, where, e.Reason)}
	case e.Code != 0:
		return &exitError{e.Code, nil}
	}
	return nil
}

// keeperError turns the keeper's word into an error with its hint.
func keeperError(err error) error {
	if f, ok := errors.AsType[*keeper.Failure](err); ok && f.Hint != "" {
		return term.WithHint(err, "%s", f.Hint)
	}
	return err
}

func endedError(why string) error {
	if why == "" {
		return errors.New("the sandbox ended before its command")
	}
	return fmt.Errorf("the sandbox was ended: %s", why)
}
