package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/cutoutdev/cutout/internal/config"
)

func (a *app) secretCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "secret",
		Short: "List the credentials that need no host",
		Long: `Secret tells what Cutout knows about credentials.

Exit status: 0, 1 when it failed, 2 when the command line is wrong.`,
		Example: `  cutout secret ls-known`,
		Args:    usage(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.secretKnownCommand())
	return cmd
}

func (a *app) secretKnownCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ls-known",
		Short: "List the well-known credentials with their hosts",
		Long: `Ls-known lists the catalogue: credentials for which --secret NAME is enough,
with the hosts to which they go and the surfaces on which they may stand.
--secret NAME@HOST leaves the catalogue out; --surface and --placeholder win
over it. With --json each has the service's page that its row rests on.

Exit status: 0, 1 when it failed, 2 when the command line is wrong.`,
		Example: `  cutout secret ls-known
  cutout secret ls-known --json`,
		Args:              usage(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			if asJSON {
				return json.NewEncoder(a.stdout).Encode(config.Known())
			}
			w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tHOSTS\tSURFACES\tPLACEHOLDER")
			for _, k := range config.Known() {
				placeholder := config.DefaultPlaceholder(k.Name)
				if k.Shaped {
					placeholder = "shaped"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", k.Name, strings.Join(k.Hosts, ","), strings.Join(k.Surfaces, ","), placeholder)
			}
			return w.Flush()
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON array")
	return cmd
}
