package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/cutoutdev/cutout/internal/conntrack"
	"github.com/cutoutdev/cutout/internal/keeper"
	"github.com/cutoutdev/cutout/internal/state"
	"github.com/cutoutdev/cutout/internal/term"
)

func (a *app) netCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "net [ID|latest]",
		Short: "Show the live connections of a sandbox",
		Long: `Net prints the connections that go over a running sandbox's boundary: which way
and by what protocol, both ends, the name that the guest asked for, what becomes
of them, the bytes to the guest and from it, their age, and the network rule that
let them pass; then the published ports, and the guest's packets that went no
further. Of what is said nothing is shown. An ID may be shortened to an
unambiguous beginning.

States: opening (the other side is being dialled), open (nobody has spoken),
spliced (bytes pass unread), http (requests in clear are read), intercepted
(TLS is opened, requests are read).

Exit status: 0, 1 when there is no such sandbox or it has ended, 2 when the
command line is wrong.`,
		Example: `  cutout net
  cutout net latest
  cutout net --json 3f2a | jq '.connections[] | select(.state == "intercepted")'`,
		Args: usage(cobra.MaximumNArgs(1)),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return completeSandboxes(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			name := "latest"
			if len(args) > 0 {
				name = args[0]
			}
			ctx, stop := interruptible(cmd)
			defer stop()
			return a.net(ctx, name, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

func (a *app) net(ctx context.Context, name string, asJSON bool) error {
	home, err := state.Default()
	if err != nil {
		return err
	}
	entry, err := findSandbox(home, name)
	if err != nil {
		return err
	}
	if !home.Running(entry.ID) {
		return term.WithHint(fmt.Errorf("sandbox %s has ended", entry.ID), "cutout audit %s says what it did", entry.ID)
	}
	client := keeper.Dial(home.SandboxRuntime(entry.ID))
	defer client.Close()
	n, err := client.Net(ctx)
	if err != nil {
		return term.WithHint(err, "the sandbox is starting or ending; try again")
	}
	if asJSON {
		return json.NewEncoder(a.stdout).Encode(n)
	}
	return a.printNet(n)
}

// findSandbox finds what the user named, with advice if it is not there.
func findSandbox(home state.Home, name string) (state.Entry, error) {
	entry, err := home.Find(name)
	if errors.Is(err, state.ErrNoSandbox) {
		err = term.WithHint(err, "%s", sandboxesHint(home))
	}
	return entry, err
}

// printNet prints for people. Names were chosen by the guest.
func (a *app) printNet(n keeper.NetState) error {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	if len(n.Flows) > 0 {
		fmt.Fprintln(w, "PROTOCOL\tFROM\tTO\tNAME\tSTATE\tIN\tOUT\tAGE\tRULE")
	}
	for _, f := range n.Flows {
		fmt.Fprintln(w, flowLine(f, time.Now()))
	}
	for _, p := range n.Published {
		fmt.Fprintf(w, "published %s\n", p)
	}
	for _, cause := range slices.Sorted(maps.Keys(n.Dropped)) {
		fmt.Fprintf(w, "dropped %s: %d\n", term.Escape(cause), n.Dropped[cause])
	}
	return w.Flush()
}

func flowLine(f conntrack.Flow, now time.Time) string {
	words := []string{
		string(f.Protocol), f.Src.String(), f.Dst.String(), f.Name, string(f.State),
		term.Bytes(int64(f.In)), term.Bytes(int64(f.Out)), now.Sub(f.Begun).Truncate(time.Second).String(), f.Rule,
	}
	for i, w := range words {
		if words[i] = term.Escape(w); w == "" {
			words[i] = "-"
		}
	}
	return strings.Join(words, "\t")
}
