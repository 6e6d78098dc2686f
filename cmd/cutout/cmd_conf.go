package main

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cutoutdev/cutout/internal/config"
)

// configure reads the file of --conf, if there is one, for what no flag says.
func (o *runOptions) configure(flags *pflag.FlagSet) error {
	if o.Conf == "" {
		return nil
	}
	file, whole, places, err := config.LoadFile(o.Conf)
	if err != nil {
		return err
	}
	o.places = places
	o.Also = append(o.Also, whole, config.Text{Where: "--conf", Text: o.Conf})
	file.Merge(&o.Run, flags.Changed)
	if o.Image == "" {
		o.Image = string(file.Image)
	}
	if !flags.Changed("copy") {
		o.Copies = file.Copy
	}
	if !flags.Changed("timeout") {
		if o.Timeout, err = file.Deadline(); err != nil {
			return places.Locate(err)
		}
	}
	if file.TTY != nil && !flags.Changed("tty") && !flags.Changed("no-tty") {
		o.TTY, o.NoTTY = *file.TTY, !*file.TTY
	}
	if file.Quiet != nil && !flags.Changed("quiet") {
		o.Quiet = *file.Quiet
	}
	if file.NoSnapshot != nil && !flags.Changed("no-snapshot") {
		o.Boot = *file.NoSnapshot
	}
	return nil
}

func (a *app) confCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "conf",
		Short: "Describe the configuration file of run --conf",
		Long: `Conf tells what cutout run --conf reads.

Exit status: 0, 1 when it failed, 2 when the command line is wrong.`,
		Example: `  cutout conf schema > cutout.schema.json`,
		Args:    usage(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of a configuration",
		Long: `Schema prints the JSON Schema of a configuration, for editors that complete
and check YAML by one.

Exit status: 0, 1 when it failed, 2 when the command line is wrong.`,
		Example:           `  cutout conf schema > cutout.schema.json`,
		Args:              usage(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			_, err := a.stdout.Write(config.Schema())
			return err
		},
	})
	return cmd
}
