package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/cutoutdev/cutout/internal/state"
	"github.com/cutoutdev/cutout/internal/term"
)

// A check is one thing that doctor looked at. Its JSON form stays stable.
type check struct {
	Name   string `json:"name"`
	Status status `json:"status"`
	Detail string `json:"detail"`
	Hint   string `json:"hint,omitempty"` // what to do
}

type status string

const (
	statusOK      status = "ok"
	statusWeak    status = "weak"    // a sandbox starts, with less than it could have
	statusMissing status = "missing" // no sandbox starts
)

func (a *app) doctorCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say what is there, what is missing and what that weakens",
		Long: `Doctor looks at everything that a sandbox needs on this machine: QEMU, guest
kernel and agent, the default image, snapshots to start from, hardware
virtualisation, what QEMU can be confined with, and where values are kept. It changes nothing.

Exit status: 0, 1 when a sandbox cannot start, 2 when the command line is
wrong.`,
		Example: "  cutout doctor\n  cutout doctor --json | jq '.[] | select(.status != \"ok\")'",
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := interruptible(cmd)
			defer stop()
			home, err := state.Default()
			checks := []check{checkState(home, err)}
			if err == nil {
				checks = append(checks, checkKernel(home), checkDefaultImage(ctx, home), checkSnapshots(home))
			}
			checks = append(checks, checkQEMU(ctx), checkKVM(ctx), checkCage(), checkStore(), checkMemory())
			return a.reportChecks(checks, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	return cmd
}

func (a *app) reportChecks(checks []check, asJSON bool) error {
	missing := false
	for _, c := range checks {
		missing = missing || c.Status == statusMissing
	}
	if asJSON {
		if err := a.printJSON(checks); err != nil {
			return err
		}
	} else if err := a.printChecks(checks); err != nil {
		return err
	}
	if !missing {
		return nil
	}
	if asJSON {
		return &exitError{exitFailed, nil}
	}
	return &exitError{exitFailed, errors.New("a sandbox cannot start on this machine yet")}
}

func (a *app) printChecks(checks []check) error {
	marks := map[status]string{statusOK: "✓", statusWeak: "!", statusMissing: "✗"}
	for _, c := range checks {
		if _, err := fmt.Fprintf(a.stdout, "%s %-10s %s\n", marks[c.Status], c.Name, term.Escape(c.Detail)); err != nil {
			return err
		}
		if c.Hint == "" {
			continue
		}
		if _, err := fmt.Fprintf(a.stdout, "  %-10s %s\n", "", term.Escape(c.Hint)); err != nil {
			return err
		}
	}
	return nil
}
