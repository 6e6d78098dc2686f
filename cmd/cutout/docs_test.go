package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/cutoutdev/cutout/internal/testnet"
	"github.com/cutoutdev/cutout/test/script"
)

// TestDocumentedCommands runs every cutout run of the documentation where no
// kernel is installed: each must get as far as to miss it, so each flag in
// them is there and means what it says. With a kernel test/e2e runs those of
// the sessions.
func TestDocumentedCommands(t *testing.T) {
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ca, err := testnet.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		os.Symlink(self, filepath.Join(dir, "cutout")), os.Mkdir(filepath.Join(dir, "docs"), 0o755),
		os.WriteFile(filepath.Join(dir, ".api-key"), []byte("sk-live-4f9a2c5b7d8e9f00112233\n"), 0o600),
		os.WriteFile(filepath.Join(dir, "pass"), []byte("#!/bin/sh\necho sk-live-4f9a2c5b7d8e9f00112233\n"), 0o755),
		os.WriteFile(filepath.Join(dir, "cutout.yaml"), script.Example(t, "../../docs/configuration.md"), 0o644),
		os.WriteFile(filepath.Join(dir, "README.md"), nil, 0o644), ca.WriteFile(filepath.Join(dir, "ca.pem")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	lines := documented(t)
	if len(lines) < 10 {
		t.Fatalf("found %d commands", len(lines))
	}
	for _, line := range lines {
		cmd := exec.Command("sh", "-c", line)
		cmd.Dir = dir
		cmd.Env = []string{
			"PATH=" + dir + ":/usr/bin:/bin", "HOME=" + dir, "CUTOUT_HOME=" + filepath.Join(dir, "home"),
			"API_KEY=sk-live-4f9a2c5b7d8e9f00112233", "PIN=4711", "GITHUB_TOKEN=ghp_4f9a2c5b7d8e9f00112233445566",
		}
		out, _ := cmd.CombinedOutput()
		if !strings.Contains(string(out), "cutout: there is no guest kernel") || strings.Contains(string(out), "4f9a2c5b7d8e9f") {
			t.Errorf("%s\n%s", line, out)
		}
	}
}

// documented lists the commands of the documentation that run a sandbox.
func documented(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, file := range append(files, "../../README.md") {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range regexp.MustCompile("(?s)```(?:console|sh)\n(.*?)```").FindAllStringSubmatch(string(data), -1) {
			for line := range strings.Lines(block[1]) {
				if line = strings.TrimPrefix(line, "$ "); strings.HasPrefix(line, "cutout run ") {
					out = append(out, strings.TrimSpace(line))
				}
			}
		}
	}
	return out
}
