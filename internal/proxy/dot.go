package proxy

import (
	"slices"

	"github.com/cutoutdev/cutout/internal/conntrack"
	"github.com/cutoutdev/cutout/internal/hello"
	"github.com/cutoutdev/cutout/internal/policy"
)

// dotPort is that of DNS over TLS, RFC 7858 §3.1.
const dotPort = 853

// answersDNS reports whether a flow that is refused as DNS over TLS is
// answered instead: what a resolver of the guest's choice says is worth
// nothing here, what ours says is.
func (f *flow) answersDNS() bool {
	return f.dst.Port() == dotPort && f.cfg.Intercept == All && f.cfg.DNS != nil
}

// serveDNS answers in place of the server, which is not dialled, if the guest
// says whose certificate it wants.
func (f *flow) serveDNS(ask Flow) {
	guest, err := ask.Accept()
	if err != nil {
		return
	}
	defer guest.Close()
	f.guest = f.entry.Wrap(guest)
	peeked, first, err := hello.Peek(f.ctx, f.guest, hello.Config{Silence: headWait})
	f.guest = peeked
	if err != nil || first.Kind != hello.TLS || first.Malformed || first.Name == "" || !f.opens(first.Name, hello.Hello{}) {
		f.abort(policy.ProtocolDenied, first.Name, "")
		return
	}
	f.entry.Becomes(conntrack.Intercepted)
	protocol := ""
	if slices.Contains(first.ALPN, "dot") {
		protocol = "dot"
	}
	conn, err := f.answer(first.Name, first, protocol)
	if err != nil {
		f.denied(policy.GuestHandshake, first.Name, "")
		return
	}
	f.cfg.DNS.ServeConn(f.ctx, conn)
}
