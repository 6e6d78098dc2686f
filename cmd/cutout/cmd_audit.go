package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/state"
	"github.com/cutoutdev/cutout/internal/term"
)

func (a *app) auditCommand() *cobra.Command {
	var follow, asJSON bool
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
  cutout audit --json 3f2a | jq 'select(.event == "refused")'`,
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
			return a.audit(ctx, name, follow, asJSON)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on printing until the sandbox ends")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the log's lines as they are, one JSON object each")
	return cmd
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

func (a *app) audit(ctx context.Context, name string, follow, asJSON bool) error {
	home, err := state.Default()
	if err != nil {
		return err
	}
	entry, err := findSandbox(home, name)
	if err != nil {
		return err
	}
	f, err := os.Open(filepath.Join(home.Sandbox(entry.ID), "audit.jsonl"))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("open audit log: sandbox %s has none yet", entry.ID)
	}
	if err != nil {
		return fmt.Errorf("open audit log: %w", err)
	}
	defer f.Close()
	lines := &lineReader{r: bufio.NewReader(f)}
	for {
		ended := !home.Running(entry.ID) // before reading: what is read afterwards is complete
		if err := a.printEvents(lines, asJSON); err != nil {
			return err
		}
		if !follow || ended {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(followEvery):
		}
	}
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
func (a *app) printEvents(lines *lineReader, asJSON bool) error {
	for {
		line, err := lines.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read audit log: %w", err)
		}
		if asJSON {
			_, err = fmt.Fprintf(a.stdout, "%s\n", line)
		} else {
			_, err = fmt.Fprintln(a.stdout, eventLine(line))
		}
		if err != nil {
			return err
		}
	}
}

// A lineReader reads whole lines of a file that may still grow.
type lineReader struct {
	r       *bufio.Reader
	partial []byte
}

// next returns the next line without its end, or io.EOF if it is not whole
// yet.
func (l *lineReader) next() (string, error) {
	more, err := l.r.ReadBytes('\n')
	l.partial = append(l.partial, more...)
	if err != nil {
		return "", err
	}
	line := string(l.partial[:len(l.partial)-1])
	l.partial = l.partial[:0]
	return line, nil
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
