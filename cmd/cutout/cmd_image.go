package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/cutoutdev/cutout/internal/image"
	"github.com/cutoutdev/cutout/internal/state"
	"github.com/cutoutdev/cutout/internal/term"
	"github.com/cutoutdev/cutout/internal/vm/snapshot"
)

// defaultImage is the name of the image that run uses when none is named.
const defaultImage = "default"

func (a *app) imageCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "image",
		Short: "Import, pull, list and remove images",
		Long: `Image manages the root file systems that sandboxes start from. Each is kept
once, as a read-only disk.

Exit status: 0, 1 when it failed, 2 when the command line is wrong.`,
		Example: `  cutout image import tools ./rootfs.tar
  cutout image pull docker.io/library/alpine
  cutout image ls`,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.imageImportCommand(), a.imagePullCommand(), a.imageListCommand(), a.imageRemoveCommand())
	return cmd
}

func imageStore() (*image.Store, error) {
	home, err := state.Default()
	if err != nil {
		return nil, err
	}
	return &image.Store{Dir: home.Images()}, nil
}

func (a *app) imageImportCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "import NAME PATH",
		Short: "Make an image of a tar, a directory, docker save's output or an OCI layout",
		Long: `Import makes an image called NAME of PATH: a root file system as a directory
or a tar (plain, gzip, zstd or xz), the output of docker save, or an OCI image
layout as a directory or tar. An image that had the name is replaced.

Layers are not trusted: what could write outside of the image, or would
exhaust the disk, is refused.

Exit status: 0, 1 when it failed, 2 when the command line is wrong.`,
		Example: `  cutout image import tools ./rootfs.tar.gz
  docker save alpine | cutout image import alpine /dev/stdin
  cutout image import mine ./oci-layout`,
		Args: usage(cobra.ExactArgs(2)),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return completeImages(), cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveDefault
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := interruptible(cmd)
			defer stop()
			store, err := imageStore()
			if err != nil {
				return err
			}
			img, err := store.Import(ctx, args[0], args[1], a.out.Progress)
			return a.gotImage(img, imageHint(err, args[0]))
		},
	}
}

func (a *app) imagePullCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "pull REFERENCE",
		Short: "Fetch an image from a registry",
		Long: `Pull fetches an image from an OCI registry, with docker's credentials if there
are any, and keeps it under the reference as written.

Exit status: 0, 1 when it failed, 2 when the command line is wrong.`,
		Example: `  cutout image pull docker.io/library/alpine:3.22`,
		Args:    usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := interruptible(cmd)
			defer stop()
			store, err := imageStore()
			if err != nil {
				return err
			}
			img, err := store.Pull(ctx, args[0], a.out.Progress)
			return a.gotImage(img, imageHint(err, args[0]))
		},
	}
}

// gotImage ends the progress line and names the image on stdout.
func (a *app) gotImage(img image.Image, err error) error {
	a.out.Progress("", 0, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "%s %s %s\n", term.Escape(img.Name), img.Digest, term.Bytes(img.Size))
	return err
}

func (a *app) imageListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the images",
		Long: `Ls lists the images by name, with digest, size on disk and age.

Exit status: 0, 1 when it failed, 2 when the command line is wrong.`,
		Example: "  cutout image ls\n  cutout image ls --json",
		Args:    usage(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			store, err := imageStore()
			if err != nil {
				return err
			}
			images, err := store.List()
			if err != nil {
				return err
			}
			if asJSON {
				return a.printImagesJSON(images)
			}
			return a.printImages(images)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	return cmd
}

func (a *app) printImages(images []image.Image) error {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "NAME\tDIGEST\tSIZE\tCREATED")
	for _, img := range images {
		digest := img.Digest[:min(len(img.Digest), len("sha256:")+12)]
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", term.Escape(img.Name), digest, term.Bytes(img.Size), img.Created.Local().Format("2006-01-02 15:04"))
	}
	return w.Flush()
}

// An imageRecord is an image in image ls --json, which stays stable.
type imageRecord struct {
	Name    string    `json:"name"`
	Digest  string    `json:"digest"`
	Size    int64     `json:"size"`
	Created time.Time `json:"created"`
}

func (a *app) printImagesJSON(images []image.Image) error {
	records := make([]imageRecord, 0, len(images))
	for _, img := range images {
		records = append(records, imageRecord{img.Name, img.Digest, img.Size, img.Created.UTC()})
	}
	return a.printJSON(records)
}

func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func (a *app) imageRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "rm NAME…",
		Aliases: []string{"remove"},
		Short:   "Remove images",
		Long: `Rm removes images by name, and the snapshots of machines that have booted with
them. Sandboxes that run on them keep their disks.

Exit status: 0, 1 when one could not be removed, 2 when the command line is
wrong.`,
		Example: "  cutout image rm tools",
		Args:    usage(cobra.MinimumNArgs(1)),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return completeImages(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			home, err := state.Default()
			if err != nil {
				return err
			}
			store := image.Store{Dir: home.Images()}
			var errs []error
			for _, name := range args {
				errs = append(errs, store.Remove(name))
			}
			snapshots := snapshot.Store{Dir: home.Snapshots()}
			errs = append(errs, snapshots.Sweep())
			err = errors.Join(errs...)
			if errors.Is(err, image.ErrNotFound) {
				err = term.WithHint(err, "see cutout image ls")
			}
			return err
		},
	}
}

func completeImages() []string {
	store, err := imageStore()
	if err != nil {
		return nil
	}
	images, err := store.List()
	if err != nil {
		return nil
	}
	var names []string
	for _, img := range images {
		names = append(names, img.Name)
	}
	return names
}
