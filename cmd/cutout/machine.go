package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cutoutdev/cutout/internal/state"
	"github.com/cutoutdev/cutout/internal/term"
	"github.com/cutoutdev/cutout/internal/vm/kernel"
)

// agentName is the guest's init and agent, which lies beside cutout.
const agentName = "cutout-agent"

// guestMachine returns kernel and initramfs as setup has left them. The
// initramfs is named by what it is made of, so a new agent or kernel gets a
// new one here.
func guestMachine(home state.Home) (vmlinux, initrd string, err error) {
	k, err := kernel.Open(home.Kernel())
	if errors.Is(err, kernel.ErrNotInstalled) {
		return "", "", term.WithHint(errors.New("there is no guest kernel"), "run cutout setup")
	}
	if err != nil {
		return "", "", term.WithHint(err, "run cutout setup --again")
	}
	initrd, err = ensureInitramfs(home, k)
	return k.Vmlinux, initrd, err
}

// ensureInitramfs writes the initramfs for k and the agent, if it is not
// there.
func ensureInitramfs(home state.Home, k *kernel.Installed) (string, error) {
	agent, err := findAgent()
	if err != nil {
		return "", err
	}
	sum, err := agentSum(agent)
	if err != nil {
		return "", err
	}
	path := filepath.Join(home.Kernel(), fmt.Sprintf("initramfs-%s-%x.cpio", k.Release, sum[:6]))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	var archive bytes.Buffer
	if err := kernel.Initramfs(&archive, agent, k.Modules); err != nil {
		return "", fmt.Errorf("build initramfs: %w", err)
	}
	old := initramfses(home)
	if err := state.WriteFile(path, archive.Bytes(), 0o644); err != nil {
		return "", err
	}
	for _, name := range old { // machines that run have read theirs
		os.Remove(name)
	}
	return path, nil
}

func initramfses(home state.Home) []string {
	found, _ := filepath.Glob(filepath.Join(home.Kernel(), "initramfs-*.cpio")) // the pattern is well formed
	return found
}

// findAgent returns the agent beside this program.
func findAgent() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find %s: %w", agentName, err)
	}
	if real, err := filepath.EvalSymlinks(self); err == nil {
		self = real
	}
	path := filepath.Join(filepath.Dir(self), agentName)
	if _, err := os.Stat(path); err != nil {
		return "", term.WithHint(fmt.Errorf("there is no %s beside %s", agentName, self), "install both, as make build leaves them in bin")
	}
	return path, nil
}

func agentSum(path string) ([sha256.Size]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return [sha256.Size]byte{}, fmt.Errorf("read agent: %w", err)
	}
	return sha256.Sum256(data), nil
}
