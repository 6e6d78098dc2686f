package dns

import (
	"context"
	"net/netip"
	"slices"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/cutoutdev/cutout/internal/hostname"
)

// Addresses asks for name as a guest would, under the same rules, and returns
// what a guest would be given.
func (i *Interceptor) Addresses(ctx context.Context, name hostname.Name) []netip.Addr {
	n, err := dnsmessage.NewName(string(name) + ".")
	if err != nil {
		return nil
	}
	var out []netip.Addr
	for _, kind := range []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA} {
		query := dnsmessage.Message{
			Header:    dnsmessage.Header{RecursionDesired: true},
			Questions: []dnsmessage.Question{{Name: n, Type: kind, Class: dnsmessage.ClassINET}},
		}
		packed, err := query.Pack()
		if err != nil {
			return nil
		}
		var answer dnsmessage.Message
		if answer.Unpack(i.Answer(ctx, packed, true)) != nil {
			continue
		}
		for _, r := range answer.Answers {
			if a, ok := addressOf(r); ok {
				out = append(out, a)
			}
		}
	}
	return slices.Compact(out)
}

// addressOf is the address in an A or AAAA record.
func addressOf(rr dnsmessage.Resource) (a netip.Addr, ok bool) {
	switch b := rr.Body.(type) {
	case *dnsmessage.AResource:
		return netip.AddrFrom4(b.A), true
	case *dnsmessage.AAAAResource:
		return netip.AddrFrom16(b.AAAA), true
	}
	return netip.Addr{}, false
}
