package proxy

import (
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A tidier collects once no request is in progress, and only after a value.
func TestTidier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var busy atomic.Bool
		tidy := newTidier(busy.Load)
		defer tidy.timer.Stop()
		collections := func() uint32 {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return m.NumForcedGC
		}
		for _, step := range []struct {
			name      string
			due, busy bool
			want      uint32
		}{
			{"no value", false, false, 0},
			{"a value, but busy again", true, true, 0},
			{"quiet, and what lingers", false, false, 4},
			{"nothing since", false, false, 0},
		} {
			if step.due {
				tidy.due.Store(true)
			}
			busy.Store(step.busy)
			before := collections()
			tidy.rest()
			time.Sleep(2*quiet + linger)
			synctest.Wait()
			if got := collections() - before; got != step.want {
				t.Errorf("%s: %d collections, want %d", step.name, got, step.want)
			}
		}
	})
}
