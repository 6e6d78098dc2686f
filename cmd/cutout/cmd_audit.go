package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/state"
	"github.com/cutoutdev/cutout/internal/term"
)

// An auditView is what of a log is shown.
type auditView struct {
	follow, json bool
	since        string
	events       []string

	from time.Time // of since
}

func (a *app) auditCommand() *cobra.Command {
	var v auditView
	cmd := &cobra.Command{
		Use:   "audit [ID|latest]",
		Short: "Show what the boundary did",
		Long: fmt.Sprintf(`Audit prints the audit log of a sandbox: every substitution and refusal, every
value taken out of a response, every name resolved and every connection
denied. The log holds names and reasons, never a value. Logs of the last %d
sandboxes are kept. An ID may be shortened to an unambiguous beginning.

Exit status: 0, 1 when there is no such sandbox, 2 when the command line is
wrong.`, state.KeepLogs),
		Example: `  cutout audit
  cutout audit -f latest
  cutout audit --since 10m --event refused,denied
  cutout audit --json 3f2a | jq 'select(.event == "refused")'`,
		Args:              usage(cobra.MaximumNArgs(1)),
		ValidArgsFunction: completeSandboxArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := interruptible(cmd)
			defer stop()
			return a.audit(ctx, nameOrLatest(args), v)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&v.follow, "follow", "f", false, "go on printing until the sandbox ends")
	f.Var(textFlag{&v.since, "TIME"}, "since", "only what is not older: 10m, or 2026-01-02T15:04:05Z")
	f.StringSliceVar(&v.events, "event", nil, "only events of these kinds, such as refused,denied")
	f.BoolVar(&v.json, "json", false, "print the log's lines as they are, one JSON object each")
	cmd.RegisterFlagCompletionFunc("event", cobra.FixedCompletions(audit.Kinds, cobra.ShellCompDirectiveNoFileComp))
	cmd.AddCommand(a.auditVerifyCommand())
	return cmd
}

func nameOrLatest(args []string) string {
	if len(args) == 0 {
		return "latest"
	}
	return args[0]
}

func completeSandboxArgs(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return completeSandboxes(), cobra.ShellCompDirectiveNoFileComp
}

// check parses what the flags say.
func (v *auditView) check() error {
	for _, e := range v.events {
		if !slices.Contains(audit.Kinds, e) {
			err := usageError{fmt.Errorf("--event: there is no kind of event %q", e)}
			return term.WithHint(err, "the kinds are %s", strings.Join(audit.Kinds, ", "))
		}
	}
	if v.since == "" {
		return nil
	}
	if ago, err := time.ParseDuration(v.since); err == nil && ago >= 0 {
		v.from = time.Now().Add(-ago)
		return nil
	}
	var err error
	if v.from, err = time.Parse(time.RFC3339, v.since); err != nil {
		return term.WithHint(usageError{errors.New("--since is neither a duration nor a time")}, "write 10m, or 2026-01-02T15:04:05Z")
	}
	return nil
}

// shows reports whether a line is of those that are shown.
func (v *auditView) shows(line []byte) bool {
	if v.from.IsZero() && len(v.events) == 0 {
		return true
	}
	var e audit.Event
	if json.Unmarshal(line, &e) != nil {
		return true // in doubt
	}
	return !e.Time.Before(v.from) && (len(v.events) == 0 || slices.Contains(v.events, e.Event))
}

func completeSandboxes() []string {
	home, err := state.Default()
	if err != nil {
		return nil
	}
	all, err := home.List()
	if err != nil {
		return nil
	}
	names := []string{"latest"}
	for _, e := range all {
		names = append(names, e.ID)
	}
	return names
}

func (a *app) audit(ctx context.Context, name string, v auditView) error {
	if err := v.check(); err != nil {
		return err
	}
	home, id, lines, err := openAudit(name)
	if err != nil {
		return err
	}
	defer lines.Close()
	for {
		ended := !home.Running(id) // before reading: what is read afterwards is complete
		if err := a.printEvents(lines, v); err != nil {
			return err
		}
		if !v.follow || ended {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(followEvery):
		}
	}
}

func openAudit(name string) (state.Home, string, *audit.Reader, error) {
	home, err := state.Default()
	if err != nil {
		return home, "", nil, err
	}
	entry, err := findSandbox(home, name)
	if err != nil {
		return home, "", nil, err
	}
	lines, err := audit.Open(home.AuditLog(entry.ID))
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("open audit log: sandbox %s has none yet", entry.ID)
	}
	return home, entry.ID, lines, err
}

// followEvery is how often -f looks for more: soon enough for a person.
const followEvery = 200 * time.Millisecond

func sandboxesHint(home state.Home) string {
	all, err := home.List()
	if err != nil || len(all) == 0 {
		return "no sandbox has run yet; start one with cutout run"
	}
	var ids []string
	for _, e := range all[:min(5, len(all))] {
		ids = append(ids, e.ID)
	}
	return "the last ones are " + strings.Join(ids, ", ")
}

// printEvents prints the whole lines that there are.
func (a *app) printEvents(lines *audit.Reader, v auditView) error {
	for {
		line, err := lines.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if !v.shows(line) {
			continue
		}
		if v.json {
			_, err = fmt.Fprintf(a.stdout, "%s\n", line)
		} else {
			_, err = fmt.Fprintln(a.stdout, eventLine(string(line)))
		}
		if err != nil {
			return err
		}
	}
}

// eventLine writes one event for people. Everything in it may have been
// chosen by the guest.
func eventLine(line string) string {
	var e audit.Event
	if err := json.Unmarshal([]byte(line), &e); err != nil {
		return term.Escape(line)
	}
	words := []string{e.Time.Local().Format("15:04:05.000"), fmt.Sprintf("%-11s", e.Event)}
	for _, w := range []string{string(e.Reason), e.Secret, e.Surface, e.Method, e.Host + e.Path} {
		if w != "" {
			words = append(words, w)
		}
	}
	if e.Src != "" {
		words = append(words, "from "+e.Src)
	}
	if e.Dst != "" {
		words = append(words, "to "+e.Dst)
	}
	if e.Count > 1 {
		words = append(words, fmt.Sprintf("(%d times)", e.Count))
	}
	if e.Detail != "" {
		words = append(words, "- "+e.Detail)
	}
	return term.Escape(strings.TrimRight(strings.Join(words, " "), " "))
}
