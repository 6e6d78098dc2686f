package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/term"
)

func (a *app) auditVerifyCommand() *cobra.Command {
	var head string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "verify [ID|latest]",
		Short: "Check that an audit log is as it was written",
		Long: `Verify checks the chain of a sandbox's audit log: every line holds a hash of
itself and of the one before it. A line that was changed, taken out, put in or
moved breaks it, and so does one that was cut off while the sandbox ran.

Whoever may write the file when the sandbox has ended can cut lines off its end
or write all of it anew with a chain that holds. The head that cutout run and
boundary print at the end, and cutout audit verify of an untouched log, is the
hash of the last line: kept elsewhere, it proves all of them with --head.

Exit status: 0 when the chain holds, 1 when it does not or there is no such
sandbox, 2 when the command line is wrong.`,
		Example: `  cutout audit verify latest
  cutout audit verify 3f2a --head 9c56cc51b374c3ba189210d5b6d4bf57790d351c96c47c02190ecf1e430635ab`,
		Args:              usage(cobra.MaximumNArgs(1)),
		ValidArgsFunction: completeSandboxArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			return a.auditVerify(nameOrLatest(args), strings.ToLower(head), asJSON)
		},
	}
	cmd.Flags().Var(textFlag{&head, "HASH"}, "head", "the last line is the one with this hash")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

func (a *app) auditVerify(name, head string, asJSON bool) error {
	home, id, lines, err := openAudit(name)
	if err != nil {
		return err
	}
	lines.Close()
	running := home.Running(id)
	report, err := audit.Verify(home.AuditLog(id))
	if err != nil {
		return term.WithHint(err, "it was changed or damaged after it was written: believe no line of it")
	}
	if head != "" && head != report.Head {
		return term.WithHint(errors.New("the head of the audit log is another"), "lines were cut off, or all of them written anew")
	}
	if asJSON {
		return json.NewEncoder(a.stdout).Encode(report)
	}
	fmt.Fprintf(a.stdout, "%d lines, the chain holds\n", report.Lines)
	if report.Before > 0 {
		fmt.Fprintf(a.stdout, "%d lines before them were given up, since the log grew too long\n", report.Before)
	}
	if !report.Ended && !running {
		fmt.Fprintln(a.stdout, "the end is missing: the keeper was killed, or lines were cut off")
	}
	fmt.Fprintln(a.stdout, "head "+report.Head)
	return nil
}
