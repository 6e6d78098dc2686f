//go:build linux

// Command flood measures what a sandbox that opens ten thousand connections
// at once, again and again, does to the host and to another sandbox.
//
//	go run ./bench/flood bin/cutout
//
// There are two boundaries. The guest of one makes requests with a secret at
// a steady pace, and how long they take is what matters. In the other a guest
// floods, with every connection full in both directions. In its place, after
// each flood, loops burn as much processor time as it and its keeper did:
// whatever takes time on this machine slows others down, and a flood must not
// do it by more than that. It prints a table, and fails if the flooded keeper
// takes too much memory, if the other sandbox's p99 is worse than beside the
// loops, or if something is kept when the flood is over. It ends by itself
// after a few minutes, whatever hangs.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

const (
	rounds      = 3
	span        = 6 * time.Second // of one load, at least
	connections = 10_000          // that are asked for at once

	maxMemory = 300 << 20 // of the flooded keeper
	maxRatio  = 1.3       // of the other sandbox's p99, to that beside the loops

	// limit is twice what it takes on two processors.
	limit = 4 * time.Minute
)

func main() {
	err := errors.New("usage: flood CUTOUT")
	switch {
	case len(os.Args) == 2 && os.Args[1] == asFlood:
		err = beFlood()
	case len(os.Args) == 2 && os.Args[1] == asLoop:
		err = beLoop()
	case len(os.Args) == 2:
		time.AfterFunc(limit+time.Minute, func() { panic("it does not end") })
		err = run(os.Args[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "flood:", err)
		os.Exit(1)
	}
}

// The settings of the steady guest.
const (
	alone       = "alone"
	besideLoops = "beside loops"
	besideFlood = "beside a flood"
)

func run(cutout string) error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), limit, fmt.Errorf("not done within %v", limit))
	defer cancel()
	w, err := newWorld(ctx, cutout)
	if err != nil {
		return err
	}
	defer w.close()
	err = w.measure(ctx)
	if ctx.Err() != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	return err
}

func (w *world) measure(ctx context.Context) error {
	client, err := newClient(ctx, w.steady)
	if err != nil {
		return err
	}
	before, err := w.held(ctx)
	if err != nil {
		return err
	}
	took := map[string][]time.Duration{}
	spent := map[string]time.Duration{}
	var all result
	during := func(setting string, f func() error) error {
		t, err := client.during(f)
		took[setting] = append(took[setting], t...)
		return err
	}
	for i := range rounds {
		err := during(alone, func() error {
			time.Sleep(span)
			return nil
		})
		if err != nil {
			return err
		}
		keeper, guest := w.keeperSpent(), w.flood.spent()
		o := order{Span: span}
		if i == 0 {
			o.Socket, o.Env = w.flooded.Path(socketName), w.flooded.Env
		}
		begin := time.Now()
		err = during(besideFlood, func() error {
			r, err := w.flood.run(o)
			all.Opened, all.Refused = all.Opened+r.Opened, all.Refused+r.Refused
			return err
		})
		if err != nil {
			return err
		}
		lasted := time.Since(begin)
		keeper, guest = w.keeperSpent()-keeper, w.flood.spent()-guest
		spent[besideFlood] += keeper + guest
		if err := w.settle(ctx); err != nil {
			return err
		}
		loops := w.loops[0].spent() + w.loops[1].spent()
		err = during(besideLoops, func() error {
			second := make(chan error, 1)
			go func() {
				_, err := w.loops[1].run(order{Span: lasted, Burn: keeper})
				second <- err
			}()
			_, err := w.loops[0].run(order{Span: lasted, Burn: guest})
			return errors.Join(err, <-second)
		})
		if err != nil {
			return err
		}
		spent[besideLoops] += w.loops[0].spent() + w.loops[1].spent() - loops
	}

	fmt.Printf("a sandbox floods with %d connections at once, again and again, %d interleaved rounds of %v or more; requests of another sandbox\n", connections, rounds, span)
	p99 := map[string]time.Duration{}
	for _, setting := range []string{alone, besideLoops, besideFlood} {
		t := slices.Sorted(slices.Values(took[setting]))
		p99[setting] = t[len(t)*99/100]
		fmt.Printf("  %-14s  %5d requests  p50 %8v  p99 %8v  processor of the load %4.1f s\n", setting, len(t),
			t[len(t)/2].Round(10*time.Microsecond), p99[setting].Round(10*time.Microsecond), spent[setting].Seconds())
	}
	fmt.Printf("  connections opened %d, refused %d\n", all.Opened, all.Refused)
	ratio := p99[besideFlood].Seconds() / p99[besideLoops].Seconds()
	most := w.mostMemory()
	ok := check("p99 beside a flood, of that beside loops", ratio <= maxRatio, "%.2f; at most %.1f", ratio, maxRatio)
	ok = check("most memory of the flooded keeper", most <= maxMemory, "%d MB; at most %d", most>>20, maxMemory>>20) && ok
	ok = check("it was a flood", all.Opened >= 1000*rounds && all.Refused > 0, "%d refused; some", all.Refused) && ok
	released, err := w.released(ctx, before)
	if err != nil {
		return err
	}
	if !released || !ok {
		return errors.New("a limit was missed")
	}
	return nil
}

func check(what string, ok bool, format string, args ...any) bool {
	verdict := "pass"
	if !ok {
		verdict = "FAIL"
	}
	fmt.Printf("  %s: %s: %s\n", what, fmt.Sprintf(format, args...), verdict)
	return ok
}
