package exec

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cutoutdev/cutout/internal/source/sourcetest"
)

func TestSource(t *testing.T) {
	put := map[string]func(path string) string{
		"shell": func(path string) string { return "cat '" + path + "'; echo" },
		"argv": func(path string) string {
			ref, _ := json.Marshal([]string{"cat", path})
			return string(ref)
		},
	}
	for name, ref := range put {
		t.Run(name, func(t *testing.T) {
			sourcetest.Test(t, func(t *testing.T) sourcetest.Place {
				path := filepath.Join(t.TempDir(), "key")
				return sourcetest.Place{
					Source: &Source{},
					Put: func(t *testing.T, value string) string {
						if err := os.WriteFile(path, []byte(value), 0o600); err != nil {
							t.Fatal(err)
						}
						return ref(path)
					},
					Absent: "cat " + path + "-other",
					Broken: []string{"exit 3", `["/does/not/exist"]`, `[]`, `[""]`, `["sh"`, `[1]`, "kill -9 $$"},
				}
			})
		})
	}
}

// read returns what the command ref gives, or the error.
func read(t *testing.T, s *Source, ref string) (string, time.Time, error) {
	t.Helper()
	v, err := s.Read(t.Context(), ref)
	if err != nil {
		return "", time.Time{}, err
	}
	defer v.Data.Close()
	return string(v.Data.Bytes()), v.Expires, nil
}

// TestExpiry: output may say until when the value is good; other JSON is a
// value like any other.
func TestExpiry(t *testing.T) {
	until := time.Date(2040, 1, 2, 3, 4, 5, 0, time.UTC)
	type test struct {
		out, value string
		expires    time.Time
	}
	tests := []test{
		{`{"value":"sk-live-01","expires_at":"2040-01-02T03:04:05Z"}`, "sk-live-01", until},
		{`{"value":"sk-live-01"}`, "sk-live-01", time.Time{}},
	}
	for _, value := range []string{`{"value":"sk-live-01","user":"me"}`, `{"token":"sk-live-01"}`, `{sk-live-01}`, `{"value":"sk-live-01"}{"value":"other"}`} {
		tests = append(tests, test{value, value, time.Time{}})
	}
	for _, want := range tests {
		out := want.out
		got, expires, err := read(t, &Source{}, "printf %s '"+out+"'")
		if err != nil || got != want.value || !expires.Equal(want.expires) {
			t.Errorf("%s: got %q until %v, %v", out, got, expires, err)
		}
	}
	for _, out := range []string{
		`{"value":"sk-live-01","expires_at":"soon"}`, `{"value":"sk-live-01","expires_at":2040}`,
		`{"value":"sk-live-01","expires_at":"2040-01-02T03:04:05Z","more":1}`, `{"expires_at":"2040-01-02T03:04:05Z"}`,
	} {
		if got, _, err := read(t, &Source{}, "printf %s '"+out+"'"); err == nil {
			t.Errorf("%s: taken for the value %q", out, got)
		} else if strings.Contains(err.Error(), "sk-live") {
			t.Errorf("%s: the error repeats the value", out)
		}
	}
}

// TestTimeout: neither a command that hangs nor what it leaves behind is
// waited for.
func TestTimeout(t *testing.T) {
	s := &Source{Timeout: 100 * time.Millisecond}
	for _, ref := range []string{`["sleep","300"]`, "sleep 300 & sleep 300"} {
		if _, _, err := read(t, s, ref); err == nil || !strings.Contains(err.Error(), "took longer") {
			t.Errorf("%s: got %v", ref, err)
		}
	}
}

// TestEndless: output is read up to a limit.
func TestEndless(t *testing.T) {
	if _, _, err := read(t, &Source{}, "yes sk-live"); err == nil || strings.Contains(err.Error(), "sk-live") {
		t.Errorf("got %v", err)
	}
}

// TestStreams: the user sees what a command says and never what it prints; it
// gets no input.
func TestStreams(t *testing.T) {
	var said bytes.Buffer
	got, _, err := read(t, &Source{Stderr: &said}, "echo touch your key >&2; read x || echo sk-live-01")
	if err != nil || got != "sk-live-01" || said.String() != "touch your key\n" {
		t.Errorf("got %q, said %q, %v", got, &said, err)
	}
	said.Reset()
	_, _, err = read(t, &Source{Stderr: &said}, "echo sk-live-01; echo not logged in >&2; exit 4")
	if err == nil || strings.Contains(err.Error(), "sk-live") || !strings.Contains(err.Error(), "exit status 4") || said.String() != "not logged in\n" {
		t.Errorf("got %v, said %q", err, &said)
	}
}
