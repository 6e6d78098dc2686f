// Command bench measures what a sandbox costs beside the machine that it
// needs in any case: the time from start to the guest's command, from a
// snapshot and by a boot, against bare QEMU with the same kernel and an init
// that does nothing.
//
//	go run ./bench bin/cutout
//
// The three are interleaved, so that a busy moment hits all of them. It prints
// the medians and their ratios, and fails if the start from a snapshot is
// above its limit.
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/cutoutdev/cutout/internal/config"
	"github.com/cutoutdev/cutout/internal/state"
	"github.com/cutoutdev/cutout/internal/vm"
	"github.com/cutoutdev/cutout/internal/vm/kernel"
	"github.com/cutoutdev/cutout/internal/vm/qemu"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: bench CUTOUT")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

const (
	rounds = 9
	limit  = 2 * time.Minute // for one start

	// maxRatio is what a start may take, as a multiple of bare QEMU's.
	maxRatio = 1.25
)

func run(cutout string) error {
	dir, err := os.MkdirTemp("", "cutout-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	bare, err := bareMachine(dir)
	if err != nil {
		return err
	}
	kinds := []struct {
		name  string
		start func() (time.Duration, error)
		took  []time.Duration
	}{
		{"bare QEMU, empty init", func() (time.Duration, error) { return timeBare(bare) }, nil},
		{"cutout run --no-snapshot", func() (time.Duration, error) { return timeSandbox(cutout, "--no-snapshot") }, nil},
		{"cutout run", func() (time.Duration, error) { return timeSandbox(cutout) }, nil},
	}
	for range rounds {
		for i, k := range kinds {
			took, err := k.start()
			if err != nil {
				return fmt.Errorf("%s: %w", k.name, err)
			}
			kinds[i].took = append(k.took, took)
		}
	}
	fmt.Printf("start to guest command, emulated, %d interleaved rounds\n", rounds)
	base, ratio := median(kinds[0].took), 0.0
	for _, k := range kinds {
		m := median(k.took)
		ratio = m.Seconds() / base.Seconds()
		fmt.Printf("  %-25s median %6v  (%v to %v)  ratio %.2f\n", k.name, m,
			slices.Min(k.took).Round(time.Millisecond), slices.Max(k.took).Round(time.Millisecond), ratio)
	}
	if ratio > maxRatio {
		return fmt.Errorf("cutout run takes %.2f times what bare QEMU takes, more than %.2f", ratio, maxRatio)
	}
	fmt.Printf("  at most %.2f: pass\n", maxRatio)
	return nil
}

func median(all []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2].Round(time.Millisecond)
}

// bareMachine builds the empty initramfs and returns QEMU's command line: the
// kernel with its command line, processor and memory of a sandbox, and no
// devices.
func bareMachine(dir string) ([]string, error) {
	home, err := state.Default()
	if err != nil {
		return nil, err
	}
	k, err := kernel.Open(home.Kernel())
	if err != nil {
		return nil, err
	}
	q, err := qemu.Find("")
	if err != nil {
		return nil, err
	}
	init := filepath.Join(dir, "init")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", init, "./bench/init")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the empty init: %w\n%s", err, out)
	}
	var archive bytes.Buffer
	if err := kernel.Initramfs(&archive, init, nil); err != nil {
		return nil, err
	}
	initrd := filepath.Join(dir, "initrd")
	if err := os.WriteFile(initrd, archive.Bytes(), 0o600); err != nil {
		return nil, err
	}
	return qemu.Bare(vm.Spec{Kernel: k.Vmlinux, Initrd: initrd, MemoryMiB: config.DefaultMemoryMiB}, q), nil
}

// timeBare measures from the start of QEMU to its end, which the init causes
// as its first and only act.
func timeBare(argv []string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	start := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("%w\n%s", err, out)
	}
	return time.Since(start), nil
}

// timeSandbox measures from the start of cutout to the first byte that the
// guest's command prints.
func timeSandbox(cutout string, flags ...string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	args := append([]string{"run", "-q", "--secret", "BENCH_KEY@api.example.test"}, flags...)
	cmd := exec.CommandContext(ctx, cutout, append(args, "--", "echo", "here")...)
	cmd.Env = append(os.Environ(), "BENCH_KEY=sk-bench-0123456789")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	var said bytes.Buffer
	cmd.Stderr = &said
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	took := time.Since(start)
	if err := errors.Join(err, cmd.Wait()); err != nil || line != "here\n" {
		return 0, fmt.Errorf("printed %q: %w\n%s", line, err, said.String())
	}
	return took, nil
}
