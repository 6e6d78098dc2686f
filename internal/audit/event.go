// Package audit records what the boundary did: one JSON line per event,
// chained by a hash so that a line cannot be changed or removed without
// notice ([Verify]).
//
// An event never holds a value: it is made from the guest's bytes, before
// substitution. Text that the guest chose is escaped by the JSON encoding
// and again wherever it is printed.
package audit

import (
	"time"

	"github.com/cutoutdev/cutout/internal/policy"
)

// The kinds of event.
const (
	Substituted = "substituted" // a value was written upstream
	Refused     = "refused"     // a request was answered with a refusal
	Carried     = "carried"     // a placeholder passed as the inert text it is
	Scrubbed    = "scrubbed"    // a value was taken out of a response
	Denied      = "denied"      // a flow was not let through
	Admitted    = "admitted"    // somebody came to a published port
	Limited     = "limited"     // a limit was reached: something waited or was turned away
	Resolved    = "resolved"    // a name was answered
	Aborted     = "aborted"     // a message was left visibly incomplete
	Spliced     = "spliced"     // a connection passed unopened
	Lifecycle   = "lifecycle"   // the sandbox started, stopped or failed
)

// Kinds are all of them.
var Kinds = []string{Substituted, Refused, Carried, Scrubbed, Denied, Admitted, Limited, Resolved, Aborted, Spliced, Lifecycle}

// An Event is one line of the log. Empty fields are left out.
type Event struct {
	Time    time.Time     `json:"time"`
	Event   string        `json:"event"`
	Reason  policy.Reason `json:"reason,omitempty"`
	Secret  string        `json:"secret,omitempty"`  // the secret's name
	Surface string        `json:"surface,omitempty"` // header, basic, query, path, body, …
	Host    string        `json:"host,omitempty"`
	Src     string        `json:"src,omitempty"` // address of whoever came to a published port
	Dst     string        `json:"dst,omitempty"` // address:port that the guest dialled, or of the published port
	Method  string        `json:"method,omitempty"`
	Path    string        `json:"path,omitempty"`   // without the query
	Rule    string        `json:"rule,omitempty"`   // of the network, that decided
	Detail  string        `json:"detail,omitempty"` // one clause for people
	Count   int           `json:"count,omitempty"`  // equal events in this line; 0 = 1

	Previous string `json:"previous,omitempty"` // chain value of the last of Count lines in earlier files, in a file's first line
}
