package debian

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Apt is apt with a state of its own below a directory: no package is
// installed in it, and the host's sources, keys, pins and proxies apply.
type Apt struct {
	dir     string
	lock    *os.File
	apt     string // path of apt-get
	dpkgDeb string
}

// A Package is a verified archive.
type Package struct {
	Name    string
	Version string
	Arch    string
	Path    string // of the .deb
	Size    int64
}

// Open prepares the state below dir and waits until no other process uses
// it. The caller closes it.
func Open(ctx context.Context, dir string) (*Apt, error) {
	apt, err := exec.LookPath("apt-get")
	if err != nil {
		return nil, ErrNoApt
	}
	dpkgDeb, err := exec.LookPath("dpkg-deb")
	if err != nil {
		return nil, ErrNoApt
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, fmt.Errorf("prepare apt: %w", err)
	}
	for _, d := range []string{"state/lists/partial", "cache/archives/partial", "none/partial", "log"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return nil, fmt.Errorf("prepare apt: %w", err)
		}
	}
	a := &Apt{dir: dir, apt: apt, dpkgDeb: dpkgDeb}
	if err := a.wait(ctx); err != nil {
		return nil, err
	}
	if err := a.configure(); err != nil {
		a.Close()
		return nil, err
	}
	return a, nil
}

// Close lets others use the state.
func (a *Apt) Close() error { return a.lock.Close() }

// wait takes the lock of the state.
func (a *Apt) wait(ctx context.Context) error {
	f, err := os.OpenFile(filepath.Join(a.dir, "lock"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("lock apt state: %w", err)
	}
	for unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		select {
		case <-ctx.Done():
			f.Close()
			return fmt.Errorf("wait for another process's downloads: %w", ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
	a.lock = f
	return nil
}

// configure writes the configuration that is read after the host's. Hooks of
// the host are for the host's state; indexes other than of packages (of
// application metadata, file contents, commands) are large and not used.
func (a *Apt) configure() error {
	if strings.ContainsAny(a.dir, "\"\n;") {
		return errors.New("prepare apt: the directory's name has a quote, semicolon or line break")
	}
	if err := os.WriteFile(filepath.Join(a.dir, "state/status"), nil, 0o600); err != nil {
		return fmt.Errorf("prepare apt: %w", err)
	}
	conf := strings.ReplaceAll(aptConf, "@DIR@", a.dir)
	if err := os.WriteFile(filepath.Join(a.dir, "apt.conf"), []byte(conf), 0o600); err != nil {
		return fmt.Errorf("prepare apt: %w", err)
	}
	return nil
}

// The sandbox user of apt could not enter a private directory, so that apt
// started by root downloads as root; our own lock stands for apt's.
const aptConf = `
Dir::State "@DIR@/state";
Dir::State::status "@DIR@/state/status";
Dir::State::lists "@DIR@/state/lists";
Dir::Cache "@DIR@/cache";
Dir::Cache::archives "@DIR@/cache/archives";
Dir::Log "@DIR@/log";
APT::Architecture "amd64";
#clear APT::Architectures;
APT::Architectures { "amd64"; };
APT::Install-Recommends "false";
APT::Install-Suggests "false";
APT::Get::AllowUnauthenticated "false";
APT::Sandbox::User "root";
APT::Color "false";
Debug::NoLocking "true";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::AllowInsecureRepositories "false";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear APT::Update::Post-Invoke-Stats;
#clear APT::Install::Pre-Invoke;
#clear APT::Install::Post-Invoke-Success;
#clear AptCli::Hooks;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
#clear DPkg::Pre-Install-Pkgs;
#clear Acquire::IndexTargets;
Acquire::IndexTargets::deb::Packages {
	MetaKey "$(COMPONENT)/binary-$(ARCHITECTURE)/Packages";
	flatMetaKey "Packages";
	ShortDescription "Packages";
	Description "$(RELEASE)/$(COMPONENT) $(ARCHITECTURE) Packages";
	flatDescription "$(RELEASE) Packages";
	Optional "0";
};
`

// environ is what apt needs of the caller's environment, which may hold
// secrets.
func environ() []string {
	env := []string{"LC_ALL=C", "DEBIAN_FRONTEND=noninteractive"}
	for _, v := range []string{
		"PATH", "HOME", "TMPDIR", "APT_CONFIG", "http_proxy", "https_proxy", "ftp_proxy", "no_proxy",
		"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "all_proxy", "ALL_PROXY",
	} {
		if value, ok := os.LookupEnv(v); ok {
			env = append(env, v+"="+value)
		}
	}
	return env
}

// command prepares apt-get with our configuration.
func (a *Apt) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, a.apt, append([]string{"-c", filepath.Join(a.dir, "apt.conf"), "-q", "-y"}, args...)...)
	cmd.Env = environ()
	cmd.Dir = filepath.Join(a.dir, "cache/archives")
	// An interrupt lets apt remove its methods; a kill would orphan them.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// run runs apt-get and returns its output. Its complaint becomes the error.
func (a *Apt) run(ctx context.Context, status func(io.Reader), args ...string) (string, error) {
	cmd := a.command(ctx, args...)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	var pw *os.File
	done := make(chan struct{})
	if status != nil {
		pr, w, err := os.Pipe()
		if err != nil {
			return "", fmt.Errorf("run apt-get: %w", err)
		}
		pw = w
		cmd.ExtraFiles = []*os.File{w}
		cmd.Args = append(cmd.Args[:1:1], append([]string{"-o", "APT::Status-Fd=3"}, cmd.Args[1:]...)...)
		go func() { defer close(done); defer pr.Close(); status(pr) }()
	} else {
		close(done)
	}
	err := cmd.Run()
	if pw != nil {
		pw.Close()
	}
	<-done
	if ctx.Err() != nil {
		return "", fmt.Errorf("run apt-get: %w", ctx.Err())
	}
	if err != nil {
		return "", fmt.Errorf("%w: apt-get says: %s", ErrUnavailable, firstErrors(complaint.String(), err))
	}
	return out.String(), nil
}

// firstErrors picks apt's error lines, at most three.
func firstErrors(text string, err error) string {
	var lines []string
	for line := range strings.Lines(text) {
		if l, ok := strings.CutPrefix(strings.TrimSpace(line), "E: "); ok && len(lines) < 3 {
			lines = append(lines, l)
		}
	}
	if len(lines) == 0 {
		return err.Error()
	}
	return strings.Join(lines, "; ")
}
