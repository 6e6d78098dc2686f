//go:build !linux

package main

import (
	"os"

	"github.com/cutoutdev/cutout/internal/term"
	"github.com/cutoutdev/cutout/internal/workload"
)

func setTerminalSize(*os.File, term.Size) {}

func newTapPlug(boundaryOptions) (plug, error) { return nil, workload.ErrUnsupported }
