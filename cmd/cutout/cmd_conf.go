package main

import (
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cutoutdev/cutout/internal/config"
)

// workloadOptions are the flags of every command that has a workload, beside
// those of its boundary.
type workloadOptions struct {
	Timeout time.Duration
	TTY     bool
	NoTTY   bool
	Quiet   bool
	Conf    string

	places config.Places // in Conf
}

func (o *workloadOptions) bindConf(cmd *cobra.Command) {
	cmd.Flags().Var(textFlag{&o.Conf, "FILE"}, "conf", "read what no flag says from a configuration in YAML")
	cmd.MarkFlagFilename("conf", "yaml", "yml")
}

// load reads the file of --conf, which is empty if none is named, and takes
// what it says of these flags. All that stands in it is searched for values.
func (o *workloadOptions) load(flags *pflag.FlagSet, b *config.Boundary) (config.File, error) {
	if o.Conf == "" {
		return config.File{}, nil
	}
	file, whole, places, err := config.LoadFile(o.Conf)
	if err != nil {
		return file, err
	}
	o.places = places
	b.Also = append(b.Also, whole, config.Text{Where: "--conf", Text: o.Conf})
	if !flags.Changed("timeout") {
		if o.Timeout, err = file.Deadline(); err != nil {
			return file, places.Locate(err)
		}
	}
	if file.TTY != nil && !flags.Changed("tty") && !flags.Changed("no-tty") {
		o.TTY, o.NoTTY = *file.TTY, !*file.TTY
	}
	if file.Quiet != nil && !flags.Changed("quiet") {
		o.Quiet = *file.Quiet
	}
	return file, nil
}

func (o *runOptions) configure(flags *pflag.FlagSet) error {
	file, err := o.load(flags, &o.Boundary)
	if err != nil {
		return err
	}
	file.Merge(&o.Run, flags.Changed)
	if o.Image == "" {
		o.Image = string(file.Image)
	}
	if !flags.Changed("copy") {
		o.Copies = file.Copy
	}
	if file.NoSnapshot != nil && !flags.Changed("no-snapshot") {
		o.Boot = *file.NoSnapshot
	}
	return nil
}

func (o *boundaryOptions) configure(flags *pflag.FlagSet) error {
	file, err := o.load(flags, &o.Boundary)
	if err != nil {
		return err
	}
	if o.Conf != "" {
		// A variable, a directory or a command that in a machine would be the
		// guest's runs programs here.
		if err := o.places.Own("says what programs of this machine are given"); err != nil {
			return err
		}
	}
	if err := file.NoMachine(); err != nil {
		return o.places.Locate(err)
	}
	if o.Tap != "" || o.Unix != "" || o.Listen != "" { // in the place of a command
		file.Command, file.Workdir, file.User = nil, "", ""
		o.TTY, o.NoTTY = o.TTY && flags.Changed("tty"), o.NoTTY && flags.Changed("no-tty")
	}
	file.MergeBoundary(&o.Boundary, flags.Changed)
	if !flags.Changed("workdir") {
		o.Dir = string(file.Workdir)
	}
	if !flags.Changed("user") {
		o.User = string(file.User)
	}
	return nil
}

func (a *app) confCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "conf",
		Short: "Describe the configuration file of --conf",
		Long: `Conf tells what --conf of cutout run and cutout boundary reads.

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
