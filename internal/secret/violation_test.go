package secret

import (
	"testing"

	"github.com/cutoutdev/cutout/internal/hostname"
)

// TestWithin: what is within a rule lets nothing go that the rule does not, on
// any host, and drops no record and no end of the sandbox.
func TestWithin(t *testing.T) {
	pattern := func(text string) hostname.Pattern {
		p, err := hostname.ParsePattern(text)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	var all []Violation
	for _, hold := range []bool{false, true} {
		for a := Default; a <= Passthrough+1; a++ {
			all = append(all, Violation{Action: a, Hold: hold})
		}
		for _, hosts := range [][]hostname.Pattern{{pattern("a.example")}, {pattern("*.a.example")}, {pattern("a.example"), pattern("x.a.example")}} {
			all = append(all, Violation{Action: Passthrough, Hosts: hosts, Hold: hold})
		}
	}
	strict := map[Action]int{Passthrough: 0, Block: 1, BlockAndLog: 2, BlockAndTerminate: 3}
	laxer := func(v, o Violation) bool {
		if v.Action > Passthrough || o.Hold && !v.Hold {
			return true
		}
		for _, name := range []hostname.Name{"a.example", "x.a.example", "y.a.example", "b.example"} {
			if strict[v.Head(name)] < strict[o.Head(name)] || strict[v.Body(name)] < strict[o.Body(name)] {
				return true
			}
		}
		return false
	}
	within := 0
	for _, v := range all {
		for _, o := range all {
			if o.Action > Passthrough {
				continue
			}
			if v.Within(o) && laxer(v, o) {
				t.Errorf("%v is within %v", v, o)
			}
			if v.Within(o) {
				within++
			} else if v.Action == o.Action && len(v.Hosts)+len(o.Hosts) == 0 && v.Hold == o.Hold && v.Action <= Passthrough {
				t.Errorf("%v is not within itself", v)
			}
		}
	}
	if within < 40 {
		t.Errorf("only %d pairs", within)
	}
}
