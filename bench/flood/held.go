//go:build linux

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/cutoutdev/cutout/bench/boundary"
)

const (
	// keptFor is how long what belonged to a flood may be kept: TIME_WAIT,
	// lingering closes (30 s) and the collector's pace.
	keptFor = time.Minute
	// maxKept is how much more memory a keeper may have than before: the
	// heap's own tables, and what the collector has not given back.
	maxKept = 32 << 20
)

// held is what the flooded keeper has.
type held struct {
	memory                           int64
	sockets, goroutines, connections int
}

func (h held) String() string {
	return fmt.Sprintf("%d MB, %d sockets, %d goroutines, %d connections", h.memory>>20, h.sockets, h.goroutines, h.connections)
}

func (w *world) keeperSpent() time.Duration { return boundary.Processor(w.flooded.Keeper) }

func (w *world) mostMemory() int64 {
	_, most := boundary.Memory(w.flooded.Keeper)
	return most
}

func (w *world) held(ctx context.Context) (h held, err error) {
	h.memory, _ = boundary.Memory(w.flooded.Keeper)
	h.sockets = boundary.Sockets(w.flooded.Keeper)
	c, err := w.flooded.Ask()
	if err != nil {
		return h, err
	}
	defer c.Close()
	info, err := c.Info(ctx)
	if err != nil {
		return h, err
	}
	h.goroutines = info.Goroutines
	net, err := c.Net(ctx)
	h.connections = len(net.Flows)
	return h, err
}

// settle waits until the keeper has nothing left to do.
func (w *world) settle(ctx context.Context) error {
	const pause = 500 * time.Millisecond
	for range 20 {
		begin := w.keeperSpent()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		if w.keeperSpent()-begin < pause/20 {
			return nil
		}
	}
	return nil // its work is then in what is measured
}

// released waits until the keeper has what it had before the flood.
func (w *world) released(ctx context.Context, before held) (bool, error) {
	for begin := time.Now(); ; time.Sleep(500 * time.Millisecond) {
		now, err := w.held(ctx)
		if err != nil {
			return false, err
		}
		ok := now.memory <= before.memory+maxKept && now.sockets <= before.sockets &&
			now.goroutines <= before.goroutines && now.connections <= before.connections
		if after := time.Since(begin); ok || after > keptFor {
			return check("kept "+after.Round(time.Second).String()+" after it", ok, "%v; before it %v", now, before), nil
		}
	}
}
