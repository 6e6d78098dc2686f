// Package metrics counts what a boundary does, for Prometheus.
//
// It tells names of secrets and reasons, addresses and names of hosts never:
// no label is anything that the guest can choose, and none has more than a
// bounded number of values.
//
// The text is written by Prometheus' own expfmt. Its client library would make
// and describe collectors of the process in every process that the program
// starts itself as, a quarter more of what such a start costs, and they read
// files that the keeper does not see.
package metrics

import (
	"strings"
	"sync"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/policy"
)

// maxLabels is how many values a label has before the others are one, which
// is more than there are reasons and more secrets than a sandbox can have in
// its locked memory.
const (
	maxLabels = 128
	others    = "other"
)

// Counters count audit events. The zero Counters are ready. Their methods may
// be called from several goroutines.
type Counters struct {
	mu     sync.Mutex
	counts map[string]map[string]uint64 // by kind of event and label
}

// labels says by what a kind of event is told apart.
var labels = map[string]func(audit.Event) string{
	audit.Substituted: bySecret,
	audit.Scrubbed:    bySecret,
	audit.Carried:     bySecret,
	audit.Refused:     byReason,
	audit.Denied:      byReason,
	audit.Aborted:     byReason,
	audit.Limited:     byLimit,
	audit.Admitted:    unlabelled,
	audit.Resolved:    unlabelled,
	audit.Spliced:     unlabelled,
}

func bySecret(e audit.Event) string { return e.Secret }

func byReason(e audit.Event) string {
	if e.Reason.What() == "" && e.Reason != policy.None {
		return others
	}
	return string(e.Reason)
}

// byLimit: the text of a limit says what becomes of what exceeds it behind a
// colon.
func byLimit(e audit.Event) string {
	what, _, _ := strings.Cut(e.Detail, ":")
	return what
}

func unlabelled(audit.Event) string { return "" }

// Observe counts e.
func (c *Counters) Observe(e audit.Event) {
	of := labels[e.Event]
	if of == nil {
		return
	}
	label := of(e)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts == nil {
		c.counts = make(map[string]map[string]uint64)
	}
	by := c.counts[e.Event]
	if by == nil {
		by = make(map[string]uint64)
		c.counts[e.Event] = by
	}
	if _, ok := by[label]; !ok && len(by) >= maxLabels {
		label = others
	}
	by[label] += uint64(max(e.Count, 1))
}

// of returns the counts of a kind of event by label.
func (c *Counters) of(event string) map[string]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[string]uint64, len(c.counts[event]))
	for label, n := range c.counts[event] {
		out[label] = n
	}
	return out
}
