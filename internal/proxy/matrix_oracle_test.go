package proxy

import (
	"encoding/json"
	"html"
	"net/url"
	"slices"
	"strings"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/policy"
)

// A verdict is what must become of a request.
type verdict struct {
	void    string        // why there is no such request
	status  int           // that the guest gets
	reason  policy.Reason // in the refusal and in the event
	gets    gets
	event   string // "" = none
	named   bool   // the event tells secret and position
	decoded bool   // a coded body goes on as identity
}

// What the upstream gets.
type gets int

const (
	nothing  gets = iota
	broken        // nothing, or a message that is visibly incomplete
	inert         // the guest's own text
	theValue      // the value, as it is written in that place
)

// The gates that fail on a route, DESIGN §3. Where nobody can be trusted with
// the connection itself every request on it is told so, §5.4, as is one that
// names another host than its connection.
var (
	gateFails = map[string]policy.Reason{
		"other host":          policy.HostNotAllowed,
		"other host, passed":  policy.HostNotAllowed,
		"other host, blocked": policy.HostNotAllowed,
		"other port":          policy.HostNotAllowed,
		"out of scope":        policy.OutOfScope,
		"unverified":          policy.UpstreamUnverified,
		"plain":               policy.PlainHTTP,
	}
	connectionFails = map[string]policy.Reason{
		"not pinned":      policy.NotPinned,
		"not proved":      policy.UpstreamUnverified,
		"other authority": policy.AuthorityMismatch,
	}
)

// oracle says what must become of a cell by the table of DESIGN §3, "What
// happens to a placeholder that is seen", and the rules of §4. It knows
// nothing of the code that decides.
func oracle(c cell) verdict {
	gate, gates := gateFails[c.route.name]
	switch {
	case c.protocol == "h2" && c.route.plain:
		return verdict{void: "HTTP/2 is not spoken in clear"}
	case c.protocol == "h2" && c.place.socket:
		return verdict{void: "a WebSocket is opened by HTTP/1.1"}
	case connectionFails[c.route.name] != "":
		return refusal403(connectionFails[c.route.name])
	case c.place.position == "authority" && !c.route.plain:
		return refusal403(policy.AuthorityMismatch)
	case !seen(c):
		return verdict{status: 200, gets: inert, decoded: opened(c)}
	}
	v := verdict{named: true}
	switch c.place.position {
	case "header name", "method", "authority":
		v = refusal403(policy.BadPosition)
	case "trailer":
		v = carried(surfaceOr(gate))
	case "body", "websocket":
		switch {
		case gates && strings.HasSuffix(c.route.name, "blocked"):
			v = late(c, gate)
		case gates:
			v = carried(gate)
		case !c.on || c.place.syntax == "binary":
			v = carried(policy.SurfaceOff)
		case c.place.syntax == "bytes":
			v = late(c, policy.NeedsEqualLength)
		case c.place.syntax == "yaml":
			v = late(c, policy.Unsafe) // the value holds what YAML would read
		default:
			v = substituted()
		}
	default:
		switch {
		case gates && strings.HasSuffix(c.route.name, "passed"):
			v = carried(gate)
		case gates:
			v = refusal403(gate)
		case !c.on:
			v = refusal403(policy.SurfaceOff)
		default:
			v = substituted()
		}
	}
	v.named = true
	v.decoded = opened(c)
	return v
}

func refusal403(r policy.Reason) verdict {
	v := verdict{status: 403, reason: r, gets: nothing, event: audit.Refused}
	if r == policy.AuthorityMismatch {
		v.status = 421
	}
	return v
}

func carried(r policy.Reason) verdict {
	return verdict{status: 200, reason: r, gets: inert, event: audit.Carried}
}

func substituted() verdict { return verdict{status: 200, gets: theValue, event: audit.Substituted} }

func surfaceOr(gate policy.Reason) policy.Reason {
	if gate == policy.None {
		return policy.SurfaceOff
	}
	return gate
}

// late is a refusal in a body or message. One whose length must be told is
// read before its head goes up, unless nothing may be written into it; the
// others have begun, and are left visibly incomplete.
func late(c cell, r policy.Reason) verdict {
	v := refusal403(r)
	if c.place.position == "websocket" {
		v.status = 200
	}
	if c.framing != "fixed" || !opened(c) {
		v.gets, v.event = broken, audit.Aborted
	}
	return v
}

// opened reports whether the value may be written into the body: all gates
// hold and the surface is on. It is then decoded, and never coded again, §4.
func opened(c cell) bool {
	_, fails := gateFails[c.route.name]
	return c.place.position == "body" && !fails && c.on
}

// readIn are the spellings that each syntax reads, §4 "Encodings": raw
// everywhere, and no other twice.
var readIn = map[string]string{
	"url": "percent", "form": "percent", "json": "json", "xml": "entity", "credentials": "base64", "name": "folded",
}

// seen reports whether the placeholder is one where it stands. What nobody may
// write into or refuse is looked at as it is, escapes and codings and all.
func seen(c cell) bool {
	how, where := c.spelling.name, c.place.position
	if how == "raw" && c.coding == "identity" {
		return true
	}
	if where == "body" && !opened(c) && c.route.name != "other host, blocked" {
		return false
	}
	if where == "trailer" {
		return how == "base64" // as in a header
	}
	read := readIn[c.place.syntax]
	return how == "raw" || read != "" && strings.HasPrefix(how, read) && !strings.HasSuffix(how, "twice")
}

// written is the value as it is written in the place, §4: encoded for where
// it lands.
func written(p place, spelled, value string) string {
	switch p.syntax {
	case "url", "form":
		return strings.ReplaceAll(url.QueryEscape(value), "+", "%20")
	case "json":
		var b strings.Builder
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		e.Encode(value)
		return strings.TrimSuffix(b.String()[1:], "\"\n")
	case "xml":
		return html.EscapeString(value)
	case "credentials":
		scheme := strings.TrimRightFunc(spelled, func(r rune) bool { return r != ' ' && r != '\t' })
		return scheme + b64(matrixUser+value)
	}
	return value
}

// forms are the ways in which an upstream that echoes could give the value
// away.
func forms(value string) []string {
	var all []string
	for _, p := range places {
		if f := written(p, "", value); !slices.Contains(all, f) {
			all = append(all, f)
		}
	}
	return all
}
