package attack

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/cutoutdev/cutout/internal/term"
)

// C11, C12: the value in what the boundary itself says and leaves. What takes
// a machine or a command line is shown by TestLeakCanary and the scripts of
// cmd/cutout.
var sectionOwn = []probe{
	{entry: "C11", name: "files, after a substitution and a refusal", run: bothAnswers, want: want{status: []int{403}, value: true}, check: nothingOnDisk},
	{entry: "C11", name: "printed, in every form of fmt and JSON", only: "h1", run: echoed("/echo"), want: scrubbed, check: nothingPrinted},
	{entry: "C11", name: "a body that waits on disk", only: "h1", change: spoolWatched, run: uploaded(17<<20, true), want: wantStatus(200), check: nothingSpooled},
	{entry: "C11", name: "terminal escapes in a path", only: "h1", run: ask("GET", "/echo/\u009b31m\u202e", "good.test", "Title", P), want: forbidden("surface_off"), check: nothingEscapes},
	{entry: "C12", name: "every frame of the guest's cable", only: "h1", change: plainFor(false), run: overheard, want: scrubbed},
	{entry: "C12", name: "what the guest is given to begin with", only: "h1", want: wantStatus(200), run: func(b *boundary) outcome {
		return b.got(outcome{status: 200, text: string(b.CertPEM()) + b.Secret.Placeholder})
	}},
}

func bothAnswers(b *boundary) outcome {
	if o := echoed("/echo")(b); o.status != 200 {
		return o
	}
	return ask("GET", "/echo?k="+P, "good.test", "Authorization", bearer)(b)
}

// nothingOnDisk searches the files that the boundary wrote, of which the
// audit log is one, and what the kernel tells of the process.
func nothingOnDisk(b *boundary) error {
	found := 0
	search := func(path string) error {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if bytes.Contains(text, []byte(`"substituted"`)) {
			found++
		}
		for _, form := range forms() {
			if bytes.Contains(text, []byte(form)) {
				return fmt.Errorf("%s holds the value", path)
			}
		}
		return nil
	}
	var err error
	for _, dir := range b.Dirs() {
		err = errors.Join(err, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			return search(path)
		}))
	}
	if err == nil && found == 0 {
		err = errors.New("the audit log was not found")
	}
	for _, path := range []string{"/proc/self/environ", "/proc/self/cmdline", "/proc/self/maps"} {
		err = errors.Join(err, search(path))
	}
	return err
}

// nothingPrinted prints what holds the value.
func nothingPrinted(b *boundary) error {
	b.InProcess("it prints what holds the value")
	for _, x := range []any{b.Secret, *b.Secret, b.Secrets, b.Secret.Value, b.Store} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			if text := fmt.Sprintf(verb, x); holdsValue(text) {
				return fmt.Errorf("%T under %s: %s", x, verb, text)
			}
		}
		if text, err := json.Marshal(x); err == nil && holdsValue(string(text)) {
			return fmt.Errorf("%T in JSON: %s", x, text)
		}
	}
	return nil
}

func holdsValue(text string) bool {
	for _, form := range forms() {
		if strings.Contains(text, form) {
			return true
		}
	}
	return false
}

// spoolWatched makes good.test look at the spool while it gets the body that
// waits there.
func spoolWatched(b *boundary) {
	spooled(b)
	b.InProcess("it looks into the process")
	dir := b.Config.SpoolDir
	b.Answer(func(w http.ResponseWriter, r *http.Request) {
		r.Body.Read(make([]byte, 1))
		links, _ := filepath.Glob("/proc/self/fd/*")
		for _, l := range links {
			if to, err := os.Readlink(l); err != nil || !strings.HasPrefix(to, dir) {
				continue
			}
			text, err := os.ReadFile(l)
			b.mu.Lock()
			b.messages = append(b.messages, fmt.Sprintf("%d %t %t %v", len(text), bytes.Contains(text, []byte(P)), holdsValue(string(text)), err))
			b.mu.Unlock()
		}
		io.Copy(io.Discard, r.Body)
	})
}

func nothingSpooled(b *boundary) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if got, want := strings.Join(b.messages, "|"), fmt.Sprintf("%d true false <nil>", 17<<20); got != want {
		return fmt.Errorf("on disk were (bytes, placeholder, value): %s; want %s", got, want)
	}
	return nil
}

// nothingEscapes checks what people are shown of text that the guest chose.
func nothingEscapes(b *boundary) error {
	seen := false
	for _, e := range b.Events.All() {
		seen = seen || strings.Contains(e.Path, "\u009b")
		if shown := term.Escape(e.Path + e.Method + e.Host + e.Detail); strings.ContainsAny(shown, "\x1b\u009b\u202e\x07") {
			return fmt.Errorf("a terminal is sent %q", shown)
		}
	}
	if !seen {
		return errors.New("no event has the path")
	}
	return nil
}

// overheard makes an honest request in clear and reads all that comes over
// the cable.
func overheard(b *boundary) outcome {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	frames := b.guest().Capture(ctx)
	o := plain(target{Port: 80})(b)
	var cable strings.Builder
	for len(frames) > 0 {
		cable.Write(<-frames)
	}
	if !strings.Contains(cable.String(), P) {
		return outcome{err: errors.New("not even the placeholder was on the cable")}
	}
	b.got(outcome{text: cable.String()})
	return o
}
