package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/cutoutdev/cutout/internal/config"
	"github.com/cutoutdev/cutout/internal/keeper"
	"github.com/cutoutdev/cutout/internal/term"
)

// The exit statuses that are Cutout's own. run uses docker's, so that they
// do not collide with a guest's; the other commands use the usual ones.
const (
	exitFailed    = 1
	exitUsage     = 2
	exitTimeout   = 124 // as timeout(1)
	exitRunFailed = 125 // as docker
)

// An app is one invocation of the command line.
type app struct {
	stdin, stdout, stderr *os.File
	out                   *term.Output // messages, on stderr
}

// execute runs the command line args and returns the exit status.
func execute(args []string) int {
	a := &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, out: term.NewOutput(os.Stderr)}
	if err := keeper.Harden(); err != nil { // the environment holds values
		a.out.Error(err)
		return exitRunFailed
	}
	root := a.root()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(context.Background())
	return a.report(cmd, err)
}

// An exitError ends the process with a status of its own. A nil err says
// nothing: everything has been said.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// A usageError is a mistake on the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// report prints err and returns the exit status that goes with it.
func (a *app) report(cmd *cobra.Command, err error) int {
	if err == nil {
		return 0
	}
	code := exitFailed
	exit, usage := (*exitError)(nil), usageError{}
	switch {
	case errors.As(err, &exit):
		if exit.err == nil {
			return exit.code
		}
		code = exit.code
	case cmd.Annotations[failStatus] != "":
		code = exitRunFailed
	case errors.As(err, &usage):
		code = exitUsage
	}
	if errors.As(err, &usage) && hintOf(err) == "" {
		err = term.WithHint(err, "see %s --help", cmd.CommandPath())
	}
	if hint := config.Hint(err); hint != "" {
		err = term.WithHint(err, "%s", hint)
	}
	if errors.Is(err, syscall.ENOSPC) && hintOf(err) == "" {
		err = term.WithHint(err, "free some space")
	}
	a.out.Error(err)
	return code
}

// failStatus marks the command whose failures are 125.
const failStatus = "fail-status"

func hintOf(err error) string {
	if h := config.Hint(err); h != "" {
		return h
	}
	if h, ok := errors.AsType[interface {
		error
		Hint() string
	}](err); ok {
		return h.Hint()
	}
	return ""
}

// interruptible returns a context that ends when the user interrupts.
func interruptible(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
}

// root builds the command tree.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "cutout",
		Short: "Run untrusted code that calls real APIs with credentials it never holds",
		Long: `Cutout runs a command in a microVM that never holds a credential. The guest
sees a placeholder; the boundary between guest and network swaps it for the
real value only in requests to the hosts that you allowed.`,
		Example: `  cutout setup
  GITHUB_TOKEN=… cutout run --secret GITHUB_TOKEN@api.github.com -- \
    sh -c 'curl -sS -H "Authorization: Bearer $GITHUB_TOKEN" https://api.github.com/user'
  cutout audit latest`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			err := usageError{fmt.Errorf("unknown command %q", args[0])}
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				return term.WithHint(err, "did you mean cutout %s?", strings.Join(near, " or cutout "))
			}
			return err
		},
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SuggestionsMinimumDistance = 2
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetFlagErrorFunc(flagError)
	root.SetHelpCommand(&cobra.Command{Hidden: true, Use: "no-help"})
	root.AddCommand(a.runCommand(), a.boundaryCommand(), a.setupCommand(), a.doctorCommand(), a.imageCommand(),
		a.secretCommand(), a.confCommand(), a.modifyCommand(), a.auditCommand(), a.netCommand(), a.explainCommand(), a.versionCommand(), a.completionCommand())
	return root
}

// usage marks the errors of check as mistakes on the command line.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{err}
		}
		return nil
	}
}
