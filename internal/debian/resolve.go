package debian

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// listsAge is how old package lists may be before they are read anew: Debian
// publishes every six hours, and mirrors drop superseded packages later.
const listsAge = 24 * time.Hour

// Update reads the package lists of the host's sources. A source that fails
// is not an error as long as some list can be read.
func (a *Apt) Update(ctx context.Context, progress Progress) error {
	report(progress, StageLists, 0, 0)
	_, err := a.run(ctx, percent(progress, StageLists, 100), "update")
	if ctx.Err() != nil {
		return err
	}
	if !a.haveLists() {
		if err == nil {
			err = fmt.Errorf("%w: no package list could be read", ErrUnavailable)
		}
		return fmt.Errorf("update package lists: %w", err)
	}
	if err != nil {
		return nil // what else could be read may do: resolving will tell
	}
	now := time.Now()
	stamp := a.stamp()
	if err := os.WriteFile(stamp, nil, 0o600); err != nil {
		return fmt.Errorf("update package lists: %w", err)
	}
	return os.Chtimes(stamp, now, now)
}

func (a *Apt) stamp() string { return filepath.Join(a.dir, "state/updated") }

func (a *Apt) haveLists() bool {
	lists, _ := filepath.Glob(filepath.Join(a.dir, "state/lists/*_Packages*"))
	return len(lists) > 0
}

// fresh reports whether the lists are young enough and were read from the
// sources that the host has now.
func (a *Apt) fresh() bool {
	st, err := os.Stat(a.stamp())
	if err != nil || time.Since(st.ModTime()) > listsAge || !a.haveLists() {
		return false
	}
	for _, p := range []string{"/etc/apt/sources.list", "/etc/apt/sources.list.d"} {
		if s, err := os.Stat(p); err == nil && s.ModTime().After(st.ModTime()) {
			return false
		}
	}
	return true
}

// Resolve returns what has to be installed for the packages, which may be
// apt patterns, on a system that has nothing. Nothing is downloaded but
// package lists.
func (a *Apt) Resolve(ctx context.Context, packages []string, progress Progress) ([]Package, error) {
	if err := checkNames(packages); err != nil {
		return nil, err
	}
	old := a.fresh()
	if !old {
		if err := a.Update(ctx, progress); err != nil {
			return nil, err
		}
	}
	list, err := a.printURIs(ctx, append([]string{"install", "--"}, packages...))
	if errors.Is(err, ErrUnavailable) && old {
		if err := a.Update(ctx, progress); err != nil {
			return nil, err
		}
		list, err = a.printURIs(ctx, append([]string{"install", "--"}, packages...))
	}
	if err != nil {
		return nil, fmt.Errorf("resolve packages: %w", err)
	}
	return list, nil
}

// Download resolves the packages and fetches their archives.
func (a *Apt) Download(ctx context.Context, packages []string, progress Progress) ([]Package, error) {
	list, err := a.Resolve(ctx, packages, progress)
	if err != nil {
		return nil, err
	}
	fetch := func() error {
		return a.fetch(ctx, list, append([]string{"install", "-d", "--"}, packages...), progress)
	}
	if err = fetch(); errors.Is(err, ErrUnavailable) {
		// The lists may be older than the mirror.
		if err := a.Update(ctx, progress); err != nil {
			return nil, err
		}
		if list, err = a.Resolve(ctx, packages, progress); err != nil {
			return nil, err
		}
		err = fetch()
	}
	if err != nil {
		return nil, fmt.Errorf("download packages: %w", err)
	}
	return list, nil
}

// downloadOnly fetches the named packages without what they depend on.
func (a *Apt) downloadOnly(ctx context.Context, packages []Package, progress Progress) error {
	args := []string{"download", "--"}
	for _, p := range packages {
		args = append(args, p.Name+"="+p.Version)
	}
	if err := a.fetch(ctx, packages, args, progress); err != nil {
		return fmt.Errorf("download packages: %w", err)
	}
	return nil
}

// fetch runs apt-get and checks that every archive is there.
func (a *Apt) fetch(ctx context.Context, list []Package, args []string, progress Progress) error {
	var total, missing int64
	for _, p := range list {
		total += p.Size
		if st, err := os.Stat(p.Path); err != nil || st.Size() != p.Size {
			missing += p.Size
		}
	}
	report(progress, StageDownload, total-missing, total)
	// Even with nothing missing apt runs: it checks the archives' hashes.
	if _, err := a.run(ctx, percent(func(stage string, done, of int64) {
		report(progress, stage, total-missing+missing*done/of, total)
	}, StageDownload, 10_000), args...); err != nil {
		return err
	}
	for _, p := range list {
		if st, err := os.Stat(p.Path); err != nil || st.Size() != p.Size {
			return fmt.Errorf("%w: the archive of %s was not downloaded", ErrUnavailable, p.Name)
		}
	}
	report(progress, StageDownload, total, total)
	return nil
}

// percent reads apt's status lines, "dlstatus:N:PERCENT:TEXT".
func percent(progress Progress, stage string, of int64) func(io.Reader) {
	return func(r io.Reader) {
		lines := bufio.NewScanner(r)
		for lines.Scan() {
			f := strings.SplitN(lines.Text(), ":", 4)
			if len(f) < 3 || f[0] != "dlstatus" {
				continue
			}
			if p, err := strconv.ParseFloat(f[2], 64); err == nil && p >= 0 && p <= 100 {
				report(progress, stage, int64(p/100*float64(of)), of)
			}
		}
		io.Copy(io.Discard, r) // a line longer than any of apt's
	}
}

// uriLine is what --print-uris prints: 'URI' FILE SIZE [HASH].
var uriLine = regexp.MustCompile(`^'([^']+)' ([^ /]+_[^ /]+_[^ /]+\.deb) ([0-9]+)(?: |$)`)

// printURIs resolves against an empty archive cache, so that all is listed.
func (a *Apt) printURIs(ctx context.Context, args []string) ([]Package, error) {
	args = append([]string{"-o", "Dir::Cache::archives=" + filepath.Join(a.dir, "none"), "--print-uris"}, args...)
	out, err := a.run(ctx, nil, args...)
	if err != nil {
		return nil, err
	}
	return parseURIs(out, filepath.Join(a.dir, "cache/archives"))
}

func parseURIs(out, archives string) ([]Package, error) {
	var list []Package
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "'") {
			continue
		}
		m := uriLine.FindStringSubmatch(strings.TrimRight(line, "\n"))
		if m == nil {
			return nil, errors.New("read apt-get's answer: a line is not understood")
		}
		parts := strings.Split(strings.TrimSuffix(m[2], ".deb"), "_")
		if len(parts) != 3 {
			return nil, errors.New("read apt-get's answer: a file name is not understood")
		}
		size, err := strconv.ParseInt(m[3], 10, 64)
		if err != nil {
			return nil, errors.New("read apt-get's answer: a size is not understood")
		}
		p := Package{Arch: parts[2], Path: filepath.Join(archives, m[2]), Size: size}
		if p.Name, err = url.PathUnescape(parts[0]); err == nil {
			p.Version, err = url.PathUnescape(parts[1])
		}
		if err != nil {
			return nil, errors.New("read apt-get's answer: a file name is not understood")
		}
		// Archives of local sources are not copied.
		if u, err := url.Parse(m[1]); err == nil && (u.Scheme == "file" || u.Scheme == "copy") {
			p.Path = u.Path
		}
		list = append(list, p)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%w: apt-get found nothing to install", ErrUnavailable)
	}
	return list, nil
}

var packageName = regexp.MustCompile(`^(\?[a-z-]+|[a-z0-9][a-z0-9+.-]*)$`)

func checkNames(packages []string) error {
	for _, p := range packages {
		if !packageName.MatchString(p) {
			return fmt.Errorf("%q is not a package's name", p)
		}
	}
	if len(packages) == 0 {
		return errors.New("no packages named")
	}
	return nil
}
