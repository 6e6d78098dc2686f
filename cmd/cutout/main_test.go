package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/cutoutdev/cutout/test/script"
)

// TestMain makes this test binary the command cutout for the scripts.
func TestMain(m *testing.M) {
	reexecuted()
	testscript.Main(m, map[string]func(){
		"cutout": func() {
			unix.Umask(0o022)
			os.Exit(execute(os.Args[1:]))
		},
	})
}

// TestScripts runs what needs no machine; those that do are in test/e2e.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("CUTOUT_HOME", filepath.Join(env.WorkDir, "home"))
			env.Setenv("API_KEY", "sk-live-0123456789abcdef")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status":  script.Status,
			"mistake": script.Mistake,
		},
	})
}
