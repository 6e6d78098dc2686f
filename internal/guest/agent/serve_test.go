package agent_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cutoutdev/cutout/internal/guest"
	"github.com/cutoutdev/cutout/internal/guest/agent"
	"github.com/google/go-cmp/cmp"
)

// connect gives a client of an agent that runs in this process.
func connect(t *testing.T) (context.Context, *guest.Client) {
	t.Helper()
	before := runtime.NumGoroutine()
	a, b := net.Pipe()
	served := make(chan struct{})
	go func() { agent.Serve(b); close(served) }()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	c, err := guest.Connect(ctx, a)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		select {
		case <-served:
		case <-time.After(10 * time.Second):
			t.Error("the agent goes on without its host")
		}
		cancel()
		for range 200 {
			if runtime.NumGoroutine() <= before {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		buf := make([]byte, 1<<16)
		t.Errorf("goroutines left:\n%s", buf[:runtime.Stack(buf, true)])
	})
	return ctx, c
}

type result struct {
	Out, Err string
	Exit     guest.Exit
}

// run runs a command to its end.
func run(t *testing.T, ctx context.Context, c *guest.Client, cmd guest.Command, stdin string) result {
	t.Helper()
	p, err := c.Start(ctx, cmd)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		io.WriteString(p.Stdin, stdin)
		if !cmd.TTY {
			p.Stdin.Close()
		}
	}()
	stderr := make(chan string, 1)
	go func() { b, _ := io.ReadAll(p.Stderr); stderr <- string(b) }()
	out, err := io.ReadAll(p.Stdout)
	if err != nil {
		t.Fatal(err)
	}
	exit, err := p.Wait(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return result{string(out), <-stderr, exit}
}

func sh(script string) guest.Command {
	return guest.Command{Args: []string{"/bin/sh", "-c", script}}
}

func TestCommands(t *testing.T) {
	ctx, c := connect(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "plain"), []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "noise"), []byte("\x01\x02\x03\x04"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "lost"), []byte("#!/no/such/interpreter\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	env := func(script string, env ...string) guest.Command {
		cmd := sh(script)
		cmd.Env = env
		return cmd
	}
	for name, test := range map[string]struct {
		cmd   guest.Command
		stdin string
		want  result
	}{
		"status":            {cmd: sh("exit 7"), want: result{Exit: guest.Exit{Code: 7}}},
		"three streams":     {cmd: sh("cat; echo err >&2"), stdin: "in", want: result{Out: "in", Err: "err\n"}},
		"killed":            {cmd: sh("kill -9 $$"), want: result{Exit: guest.Exit{Code: 137}}},
		"signalled":         {cmd: sh("kill -TERM $$"), want: result{Exit: guest.Exit{Code: 143}}},
		"not UTF-8":         {cmd: guest.Command{Args: []string{"printf", "%s", "\xff\xfe"}}, want: result{Out: "\xff\xfe"}},
		"a variable":        {cmd: env("echo $A", "A=1", "A=2"), want: result{Out: "2\n"}},
		"the default PATH":  {cmd: sh("echo $PATH"), want: result{Out: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"}},
		"a PATH of its own": {cmd: env("echo $PATH", "PATH=/bin"), want: result{Out: "/bin\n"}},
		"home":              {cmd: sh("echo $HOME"), want: result{Out: "/root\n"}},
		"made directory":    {cmd: guest.Command{Args: []string{"pwd"}, Dir: dir + "/a/b"}, want: result{Out: dir + "/a/b\n"}},
		"relative command":  {cmd: guest.Command{Args: []string{"./plain"}, Dir: dir}, want: result{Exit: guest.Exit{Code: 126, NotExecutable: true, Reason: "run ./plain: permission denied"}}},
		"no such command":   {cmd: guest.Command{Args: []string{"nonesuch"}}, want: result{Exit: guest.Exit{Code: 127, NotFound: true, Reason: "run nonesuch: command not found"}}},
		"no such path":      {cmd: guest.Command{Args: []string{"/no/such"}}, want: result{Exit: guest.Exit{Code: 127, NotFound: true, Reason: "run /no/such: no such file or directory"}}},
		"a directory":       {cmd: guest.Command{Args: []string{"/"}}, want: result{Exit: guest.Exit{Code: 126, NotExecutable: true, Reason: "run /: permission denied"}}},
		"no program":        {cmd: guest.Command{Args: []string{dir + "/noise"}}, want: result{Exit: guest.Exit{Code: 126, NotExecutable: true, Reason: "run " + dir + "/noise: exec format error"}}},
		"no interpreter":    {cmd: guest.Command{Args: []string{dir + "/lost"}}, want: result{Exit: guest.Exit{Code: 127, NotFound: true, Reason: "run " + dir + "/lost: no such file or directory"}}},
		"no such user":      {cmd: guest.Command{Args: []string{"id"}, User: "nobodyhere"}, want: result{Exit: guest.Exit{Code: 125, Reason: "no user nobodyhere in the image"}}},
		"stdin unread":      {cmd: sh("exit 3"), stdin: strings.Repeat("x", 1<<20), want: result{Exit: guest.Exit{Code: 3}}},
		"left-over child":   {cmd: sh("echo done; sleep 5 & exit 4"), want: result{Out: "done\n", Exit: guest.Exit{Code: 4}}},
		"noisy child":       {cmd: sh("echo done; (sleep 0.1; while echo noise; do :; done) & exit 4"), want: result{Out: "done\n", Exit: guest.Exit{Code: 4}}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, run(t, ctx, c, test.cmd, test.stdin)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRefusedBeforeSending(t *testing.T) {
	ctx, c := connect(t)
	for name, cmd := range map[string]guest.Command{
		"nothing":           {},
		"NUL in argument":   {Args: []string{"a\x00b"}},
		"NUL in variable":   {Args: []string{"a"}, Env: []string{"A=\x00"}},
		"directory no text": {Args: []string{"a"}, Dir: "\xff"},
	} {
		if _, err := c.Start(ctx, cmd); err == nil {
			t.Errorf("%s: started", name)
		}
	}
}

// Every byte that the command wrote arrives, also when it exits at once.
func TestOutputArrivesWhole(t *testing.T) {
	ctx, c := connect(t)
	for _, tty := range []bool{false, true} {
		cmd := sh("i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done")
		cmd.TTY = tty
		got := run(t, ctx, c, cmd, "")
		if lines := strings.Count(got.Out, "\n"); lines != 2000 || !strings.Contains(got.Out, "line 1999") {
			t.Errorf("tty %v: %d lines", tty, lines)
		}
	}
}

func TestBulk(t *testing.T) {
	ctx, c := connect(t)
	p, err := c.Start(ctx, guest.Command{Args: []string{"cat"}})
	if err != nil {
		t.Fatal(err)
	}
	const size = 100 << 20
	sent, got := sha256.New(), sha256.New()
	go func() {
		io.CopyN(io.MultiWriter(p.Stdin, sent), rand.NewChaCha8([32]byte{1}), size)
		p.Stdin.Close()
	}()
	start := time.Now()
	n, err := io.Copy(got, p.Stdout)
	if n != size || err != nil || !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
		t.Fatalf("%d of %d bytes, %v", n, size, err)
	}
	t.Logf("%.0f MB/s", size/1e6/time.Since(start).Seconds())
}

func TestSignalsAndSizes(t *testing.T) {
	ctx, c := connect(t)
	t.Run("caught", func(t *testing.T) {
		p, err := c.Start(ctx, sh(`trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.05; done`))
		if err != nil {
			t.Fatal(err)
		}
		io.ReadFull(p.Stdout, make([]byte, len("ready\n")))
		if err := p.Signal("SIGINT"); err != nil {
			t.Fatal(err)
		}
		out, _ := io.ReadAll(p.Stdout)
		if exit, err := p.Wait(ctx); string(out) != "caught\n" || exit.Code != 5 || err != nil {
			t.Fatalf("%q, %v, %v", out, exit, err)
		}
	})
	t.Run("at once", func(t *testing.T) {
		p, err := c.Start(ctx, sh("sleep 20"))
		if err != nil {
			t.Fatal(err)
		}
		p.Signal("KILL")
		if exit, err := p.Wait(ctx); exit.Code != 137 || err != nil {
			t.Fatalf("%v, %v", exit, err)
		}
		if err := p.Signal("TERM"); err != nil {
			t.Errorf("signal after the end: %v", err)
		}
	})
	t.Run("unknown", func(t *testing.T) {
		p, err := c.Start(ctx, sh(":"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"", "NOPE", "0", "65", "-9"} {
			if p.Signal(name) == nil {
				t.Errorf("%q is a signal", name)
			}
		}
		p.Wait(ctx)
	})
	t.Run("terminal", func(t *testing.T) {
		cmd := sh(`stty size; read line; stty size; tty >/dev/null && echo "tty $line $TERM"; exit 6`)
		cmd.TTY, cmd.Rows, cmd.Cols = true, 33, 77
		p, err := c.Start(ctx, cmd)
		if err != nil {
			t.Fatal(err)
		}
		first := make([]byte, len("33 77\r\n"))
		io.ReadFull(p.Stdout, first)
		if err := p.Resize(44, 99); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
		io.WriteString(p.Stdin, "hello\n")
		rest, err := io.ReadAll(p.Stdout)
		if err != nil {
			t.Fatal(err)
		}
		got := string(first) + string(rest)
		want := "33 77\r\nhello\r\n44 99\r\ntty hello xterm\r\n"
		if exit, _ := p.Wait(ctx); got != want || exit.Code != 6 {
			t.Fatalf("%q, %v", got, exit)
		}
	})
	t.Run("interrupt by terminal", func(t *testing.T) {
		cmd := sh("echo ready; sleep 20")
		cmd.TTY = true
		p, err := c.Start(ctx, cmd)
		if err != nil {
			t.Fatal(err)
		}
		io.ReadFull(p.Stdout, make([]byte, len("ready\r\n")))
		io.WriteString(p.Stdin, "\x03")
		if exit, err := p.Wait(ctx); exit.Code != 130 || err != nil {
			t.Fatalf("%v, %v", exit, err)
		}
	})
}

// A reader who has gone is to the command what the end of a pipe's reader is.
func TestReaderGone(t *testing.T) {
	ctx, c := connect(t)
	p, err := c.Start(ctx, guest.Command{Args: []string{"yes"}})
	if err != nil {
		t.Fatal(err)
	}
	io.ReadFull(p.Stdout, make([]byte, 1000))
	p.Stdout.Close()
	if exit, err := p.Wait(ctx); exit.Code != 141 || err != nil {
		t.Fatalf("%v, %v", exit, err)
	}
}

func TestTooMuchAtOnce(t *testing.T) {
	ctx, c := connect(t)
	var all []*guest.Process
	for range 70 {
		p, err := c.Start(ctx, sh("sleep 20"))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if exit, err := all[69].Wait(ctx); exit.Code != 125 || err != nil {
		t.Fatalf("%v, %v", exit, err)
	}
	for _, p := range all {
		p.Signal("KILL")
	}
	for _, p := range all {
		if _, err := p.Wait(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if got := run(t, ctx, c, sh("exit 9"), ""); got.Exit.Code != 9 {
		t.Fatalf("afterwards: %v", got)
	}
}

func TestTar(t *testing.T) {
	ctx, c := connect(t)
	dir := filepath.Join(t.TempDir(), "made")
	uid, gid := os.Getuid(), os.Getgid()
	when := time.Unix(1700000000, 0)
	header := func(h tar.Header) *tar.Header {
		h.Uid, h.Gid, h.ModTime = uid, gid, when
		return &h
	}
	body := strings.Repeat("0123456789", 200_000)
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, h := range []*tar.Header{
		header(tar.Header{Name: "./"}),
		header(tar.Header{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o2750}),
		header(tar.Header{Typeflag: tar.TypeReg, Name: "d/big", Mode: 0o4755, Size: int64(len(body))}),
		header(tar.Header{Typeflag: tar.TypeSymlink, Name: "d/link", Linkname: "/etc/passwd"}),
		header(tar.Header{Typeflag: tar.TypeLink, Name: "hard", Linkname: "d/big"}),
		header(tar.Header{Typeflag: tar.TypeReg, Name: "/abs/x", Mode: 0o600}),
		header(tar.Header{Typeflag: tar.TypeReg, Name: "hard2", Mode: 0o600}),
		header(tar.Header{Typeflag: tar.TypeLink, Name: "hard2", Linkname: "./d/big"}), // replaced
	} {
		if h.Name == "./" {
			h.Typeflag = tar.TypeDir
		}
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			io.WriteString(tw, body)
		}
	}
	tw.Close()
	if err := c.PutTar(ctx, dir, &b); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(dir + "/d/big")
	if err != nil || fi.Mode() != 0o755|os.ModeSetuid || !fi.ModTime().Equal(when) {
		t.Errorf("file: %v, %v", fi, err)
	}
	if fi, err := os.Stat(dir + "/d"); err != nil || fi.Mode() != 0o750|os.ModeDir|os.ModeSetgid || !fi.ModTime().Equal(when) {
		t.Errorf("directory: %v, %v", fi, err)
	}
	for _, name := range []string{"hard", "hard2"} {
		if other, err := os.Stat(dir + "/" + name); err != nil || !os.SameFile(fi, other) {
			t.Errorf("hard link: %v", err)
		}
	}
	var got bytes.Buffer
	if err := c.GetTar(ctx, dir, &got); err != nil {
		t.Fatal(err)
	}
	var names []string
	for tr := tar.NewReader(&got); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, fmt.Sprintf("%s %o %s %d", h.Name, h.Mode, h.Linkname, h.Size))
		if h.Name == "d/big" {
			if data, _ := io.ReadAll(tr); string(data) != body {
				t.Error("content changed")
			}
		}
	}
	want := []string{"abs/ 755  0", "abs/x 600  0", "d/ 2750  0", "d/big 4755  2000000", "d/link 777 /etc/passwd 0", "hard 4755  2000000", "hard2 4755  2000000"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Error(diff)
	}
	for path, want := range map[string]guest.Info{dir: {Exists: true, Dir: true}, dir + "/hard": {Exists: true}, dir + "/no": {}, dir + "/hard/x": {}} {
		if info, err := c.Stat(ctx, path); info != want || err != nil {
			t.Errorf("stat %s: %v, %v", path, info, err)
		}
	}
}

// No entry of a tar stream is written outside of the directory.
func TestTarStaysInside(t *testing.T) {
	ctx, c := connect(t)
	for name, entries := range map[string][]tar.Header{
		"dots":                  {{Typeflag: tar.TypeReg, Name: "../out"}},
		"dots within":           {{Typeflag: tar.TypeReg, Name: "a/../../out"}},
		"absolute link":         {{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "OUTSIDE"}, {Typeflag: tar.TypeReg, Name: "l/out"}},
		"relative link":         {{Typeflag: tar.TypeSymlink, Name: "l", Linkname: ".."}, {Typeflag: tar.TypeReg, Name: "l/out"}},
		"link to a link":        {{Typeflag: tar.TypeSymlink, Name: "m", Linkname: ".."}, {Typeflag: tar.TypeSymlink, Name: "l", Linkname: "m"}, {Typeflag: tar.TypeDir, Name: "l/out"}},
		"hard link to outside":  {{Typeflag: tar.TypeLink, Name: "out", Linkname: "../victim"}},
		"hard link by link":     {{Typeflag: tar.TypeSymlink, Name: "l", Linkname: ".."}, {Typeflag: tar.TypeLink, Name: "out", Linkname: "l/victim"}},
		"fifo through a link":   {{Typeflag: tar.TypeSymlink, Name: "l", Linkname: ".."}, {Typeflag: tar.TypeFifo, Name: "l/out"}},
		"mode through a link":   {{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "../victim.d"}, {Typeflag: tar.TypeDir, Name: "l", Mode: 0o777}},
		"file over a directory": {{Typeflag: tar.TypeDir, Name: "d", Mode: 0o755}, {Typeflag: tar.TypeReg, Name: "d"}},
	} {
		t.Run(name, func(t *testing.T) {
			outside := t.TempDir()
			os.WriteFile(outside+"/victim", []byte("victim"), 0o600)
			os.Mkdir(outside+"/victim.d", 0o700)
			var b bytes.Buffer
			tw := tar.NewWriter(&b)
			for _, h := range entries {
				h.Linkname = strings.Replace(h.Linkname, "OUTSIDE", outside, 1)
				h.Uid, h.Gid = os.Getuid(), os.Getgid()
				if err := tw.WriteHeader(&h); err != nil {
					t.Fatal(err)
				}
			}
			tw.Close()
			if err := c.PutTar(ctx, outside+"/in", &b); err == nil {
				t.Error("no error")
			}
			if _, err := os.Lstat(outside + "/out"); err == nil {
				t.Error("written outside")
			}
			if fi, err := os.Stat(outside + "/in/out"); err == nil && fi.Size() > 0 {
				t.Error("linked to outside")
			}
			if fi, _ := os.Stat(outside + "/victim.d"); fi.Mode().Perm() != 0o700 {
				t.Error("mode changed outside")
			}
		})
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("disk on fire") }

func TestTarFailures(t *testing.T) {
	ctx, c := connect(t)
	dir := t.TempDir()
	if err := c.PutTar(ctx, dir, strings.NewReader(strings.Repeat("garbage ", 1<<20))); err == nil {
		t.Error("garbage was taken")
	}
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "f", Mode: 0o644, Size: 1 << 20, Uid: os.Getuid(), Gid: os.Getgid()})
	tw.Write(make([]byte, 1000))
	if err := c.PutTar(ctx, dir, &b); err == nil {
		t.Error("a stream cut off was taken")
	}
	if err := c.PutTar(ctx, dir, brokenReader{}); err == nil || !strings.Contains(err.Error(), "on fire") {
		t.Errorf("failing reader: %v", err)
	}
	if err := c.GetTar(ctx, dir+"/missing", io.Discard); err != nil {
		t.Logf("missing: %v", err)
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	r, w := io.Pipe()
	go func() { <-short.Done(); w.Close() }()
	if err := c.PutTar(short, dir, r); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := c.Ping(ctx); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}
