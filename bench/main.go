// Command bench measures what a sandbox costs beside the machine that it
// needs in any case: the time from start to the guest's command, against
// bare QEMU with the same kernel and an init that does nothing.
//
//	go run ./bench bin/cutout
//
// Pairs are interleaved, so that a busy moment hits both; it prints both
// medians and their ratio.
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
	pairs = 9
	limit = 2 * time.Minute // for one start
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
	var alone, whole []time.Duration
	for range pairs {
		a, err := timeBare(bare)
		if err != nil {
			return fmt.Errorf("bare QEMU: %w", err)
		}
		w, err := timeSandbox(cutout)
		if err != nil {
			return fmt.Errorf("cutout run: %w", err)
		}
		alone, whole = append(alone, a), append(whole, w)
	}
	a, w := median(alone), median(whole)
	fmt.Printf("start to guest command, emulated, %d interleaved pairs\n", pairs)
	fmt.Printf("  bare QEMU, empty init   median %v  (%v to %v)\n", a, slices.Min(alone).Round(time.Millisecond), slices.Max(alone).Round(time.Millisecond))
	fmt.Printf("  cutout run              median %v  (%v to %v)\n", w, slices.Min(whole).Round(time.Millisecond), slices.Max(whole).Round(time.Millisecond))
	fmt.Printf("  ratio                   %.2f\n", w.Seconds()/a.Seconds())
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
func timeSandbox(cutout string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, cutout, "run", "-q", "--secret", "BENCH_KEY@api.example.test", "--", "echo", "here")
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
