package dns

import (
	"testing"

	"github.com/miekg/dns"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/policy"
)

// TestQueryRate: B15. A flood of questions does not reach the resolver, and
// is told.
func TestQueryRate(t *testing.T) {
	i, _ := interceptor(serve(t, zone(t, map[string][]string{"good.test.": {"good.test. 30 IN A 8.8.8.8"}})))
	var limited int
	i.Audit = func(e audit.Event) {
		if e.Reason == policy.LimitReached {
			limited++
		}
	}
	var answered int
	for range 3 * queryBurst {
		if ask(t, i, question("good.test.", dns.TypeA), false).Rcode == dns.RcodeSuccess {
			answered++
		}
	}
	if answered < queryBurst || answered+limited != 3*queryBurst || limited == 0 {
		t.Errorf("%d answered, %d limited", answered, limited)
	}
}
