package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/cutoutdev/cutout/internal/config"
	"github.com/cutoutdev/cutout/internal/keeper"
	"github.com/cutoutdev/cutout/internal/source/helper"
	"github.com/cutoutdev/cutout/internal/state"
	"github.com/cutoutdev/cutout/internal/term"
)

func (a *app) modifyCommand() *cobra.Command {
	var m config.Modify
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "modify ID|latest [flags]",
		Short: "Replace, add, narrow and remove secrets of a running sandbox",
		Long: `Modify changes the secrets of a running sandbox, all of what the flags say or
nothing.

  --secret NAME[=SOURCE]@HOST,… reads the value anew, as in cutout run, and gives
    the secret these hosts. A secret that is there keeps its placeholder and what
    no flag says; one that is not is added, for commands that are told of it.
  --hosts NAME=HOST,… leaves a secret some of its hosts. It cannot add one: what
    widens where a value may go takes --secret, so that nobody can send a value
    that he does not hold.
  --exclusive NAME and --on-violation NAME=ACTION make its rules stricter. With
    --secret for NAME they may also be laxer: --exclusive NAME=off.
  --secret-rm NAME removes a secret. Its placeholder is then refused.

The new rules hold from the next request on, on open connections too. Modify
ends when no request under way can write what was replaced or taken away:
those with a replaced value are waited for as long as --drain says, those that
are no longer permitted for 2 seconds; then they are aborted and counted. An old
value is still searched for in answers.

Exit status: 0, 1 when nothing was changed or requests do not end, 2 when the
command line is wrong.`,
		Example: `  cutout modify latest --secret API_KEY@api.example.com
  cutout modify 3f2a --hosts API_KEY=api.example.com --secret-rm OTHER_KEY
  cutout modify latest --secret API_KEY=file:new-key@api.example.com --drain 5m`,
		Args: usage(cobra.ExactArgs(1)),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return completeSandboxes(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := interruptible(cmd)
			defer stop()
			return a.modify(ctx, args[0], m, asJSON)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.Var(listFlag{&m.Secrets, "NAME[=SOURCE][@HOST[:PORT],...]"}, "secret", "replace the value and the hosts of NAME, or add it")
	f.Var(listFlag{&m.Placeholders, "NAME=TEXT"}, "placeholder", "what stands for an added secret in the guest, or shaped")
	f.Var(listFlag{&m.Surfaces, "NAME=LIST"}, "surface", "where in a request the value may go")
	f.Var(listFlag{&m.Scopes, "NAME='METHOD PATH'"}, "scope", "which requests may carry the value")
	f.Var(listFlag{&m.Hosts, "NAME=HOST[:PORT],..."}, "hosts", "leave NAME these of its hosts")
	f.Var(listFlag{&m.Exclusive, "NAME[=off]"}, "exclusive", "refuse requests to the secret's hosts that carry another credential")
	f.Var(listFlag{&m.OnViolation, "NAME=ACTION"}, "on-violation", "what to do with a placeholder that may not be swapped")
	f.Var(listFlag{&m.Remove, "NAME"}, "secret-rm", "remove NAME")
	f.DurationVar(&m.Drain, "drain", keeper.DefaultDrain, "how long requests with a replaced value are waited for")
	f.BoolVar(&m.DryRun, "dry-run", false, "check and say what would be done")
	f.BoolVar(&asJSON, "json", false, "print one JSON object")
	cmd.RegisterFlagCompletionFunc("secret", func(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		return completeSecret(typed), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	})
	return cmd
}

func (a *app) modify(ctx context.Context, name string, m config.Modify, asJSON bool) error {
	if m.Drain < time.Millisecond {
		return usageError{errors.New("--drain must be positive")}
	}
	values := &helper.Client{Notice: func(text string) { a.tell(keeper.Message{Notice: text}, false) }}
	defer values.Close()
	change, err := m.Build(ctx, values)
	if err != nil {
		return usageError{err}
	}
	home, err := state.Default()
	if err != nil {
		return err
	}
	entry, err := findSandbox(home, name)
	if err != nil {
		return err
	}
	if !home.Running(entry.ID) {
		return term.WithHint(fmt.Errorf("sandbox %s has ended", entry.ID), "secrets are given to one when it starts")
	}
	client := keeper.Dial(home.SandboxRuntime(entry.ID))
	defer client.Close()
	done, err := a.change(ctx, client, change, values)
	if err != nil {
		return keeperError(err)
	}
	if asJSON {
		return json.NewEncoder(a.stdout).Encode(done)
	}
	would := ""
	if m.DryRun {
		would = "would have: "
	}
	for _, line := range done.Done {
		fmt.Fprintln(a.stdout, would+term.Escape(line))
	}
	if done.Aborted > 0 {
		fmt.Fprintf(a.stdout, "%d requests were aborted\n", done.Aborted)
	}
	return nil
}

// change hands the values over with the change, if it needs them.
func (a *app) change(ctx context.Context, client *keeper.Client, c keeper.Change, values *helper.Client) (keeper.Changed, error) {
	if c.DryRun || len(c.Set) == 0 {
		return client.Change(ctx, c, nil)
	}
	f, err := values.HandOver(ctx)
	if err != nil {
		return keeper.Changed{}, err
	}
	defer f.Close()
	return client.Change(ctx, c, f)
}
