package keeper

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/secret"
)

// Warnings says what of the specification weakens a promise, a sentence for
// each. The user is told at every start, and the audit log keeps it.
func (s Spec) Warnings() []string {
	var out []string
	warn := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	reached := ""
	if s.Net.Egress != nil {
		reached = ", where that is reached without the upstream proxy"
	}
	for _, x := range s.Secrets {
		for _, h := range x.Hosts {
			warnHost(x, h, warn)
		}
		for _, h := range x.Plain {
			warn("%s may go to %s unencrypted%s: everybody on the way can read it", x.Name, h, reached)
		}
		for _, h := range x.Unverified {
			warn("%s may go to %s without proof that it is %[2]s%s", x.Name, h, reached)
		}
		if x.Short {
			warn("the value of %s is shorter than %d bytes: neither answers nor the command are searched for it", x.Name, secret.MinValue)
		}
	}
	if s.TLS.Intercept == "off" && len(s.Secrets) > 0 {
		warn("no TLS connection is opened, so no placeholder in one is swapped")
	}
	for _, h := range s.TLS.NoVerify {
		if !slices.ContainsFunc(s.Secrets, func(x secret.Secret) bool { return slices.Contains(x.Unverified, h) }) {
			warn("the certificate of %s is not verified; no value goes there", h)
		}
	}
	s.Net.warnings(s.Secrets, warn)
	for _, r := range s.Scrub {
		where := "the hosts of secrets answer"
		if r.Hosts != nil {
			where = r.Hosts.String() + " answers"
		}
		switch r.Mode {
		case "off":
			warn("what %s is not searched for values", where)
		case "lax":
			warn("what %s reaches the guest also where it cannot be searched for values", where)
		}
	}
	if e := s.OTLP; e != nil && e.Clear() {
		what := "the events"
		if e.Headers {
			what += " and the credential"
		}
		warn("%s go to the collector unencrypted: everybody on the way can read them", what)
	}
	if at, err := netip.ParseAddrPort(s.Metrics); err == nil && !at.Addr().IsLoopback() {
		warn("other machines may read at %s what the boundary counts, with names of secrets", at)
	}
	if s.AuditBestEffort && len(s.Secrets) > 0 {
		warn("values are written also when the audit log cannot be")
	}
	return out
}

func warnHost(x secret.Secret, h secret.Host, warn func(string, ...any)) {
	switch p := h.Pattern; {
	case p == hostname.Any():
		warn("%s may go to every server that the guest names", x.Name)
	case p.Shared():
		warn("%s may go to every name below %s, whoever owns it", x.Name, p.Base())
	case p.Wildcard() && !x.HasHost(p.Base()):
		warn("%s may go to the names below %s, but not to %[2]s itself", x.Name, p.Base())
	}
}
