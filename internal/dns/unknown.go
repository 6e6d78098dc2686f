package dns

import (
	"context"
	"sync"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/cutoutdev/cutout/internal/policy"
)

// orUnknown answers q from the resolvers or, if they know no address of the
// name, of neither family, from Unknown. Both are asked for at once: whoever
// owns a name could answer for one family and fail for the other, and what is
// known of a name is what it is judged by.
func (i *Interceptor) orUnknown(ctx context.Context, q *query) response {
	var mu sync.Mutex
	var known bool
	var answer *dnsmessage.Message
	var failure error
	var asked sync.WaitGroup
	ask := func(kind dnsmessage.Type) {
		of := *q
		of.Type = kind
		m, err := i.exchange(ctx, &of)
		mu.Lock()
		defer mu.Unlock()
		known = known || err == nil && m.RCode == dnsmessage.RCodeSuccess
		if kind == q.Type {
			answer, failure = m, err
		}
	}
	kinds := []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA}
	if q.Type != dnsmessage.TypeA && q.Type != dnsmessage.TypeAAAA {
		kinds = append(kinds, q.Type)
	}
	for _, kind := range kinds {
		asked.Go(func() { ask(kind) })
	}
	asked.Wait()
	if known || ctx.Err() != nil {
		return i.answered(q, answer, failure)
	}
	addrs, ok := i.Unknown(q.name)
	if !ok {
		return i.deny(q, policy.Verdict{Reason: policy.LimitReached}, "too many names that no resolver knows", dnsmessage.RCodeServerFailure)
	}
	r := response{answers: i.records(q, addrs)}
	i.resolved(q, len(r.answers))
	return r
}
