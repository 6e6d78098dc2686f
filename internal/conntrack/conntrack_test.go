package conntrack

import (
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/cutoutdev/cutout/internal/policy"
)

func TestTable(t *testing.T) {
	var table Table
	first := Flow{
		Direction: policy.Egress, Protocol: policy.TCP, Src: netip.MustParseAddrPort("10.0.0.2:5000"),
		Dst: netip.MustParseAddrPort("1.1.1.1:443"), Rule: "profile public", State: Opening, Begun: time.Unix(1, 0),
	}
	c := table.Add(first)
	other := table.Add(Flow{Protocol: policy.UDP, State: Open})
	a, b := net.Pipe()
	guest := c.Wrap(a)
	go func() { io.ReadFull(b, make([]byte, 3)); io.WriteString(b, "hello"); b.Close() }()
	io.WriteString(guest, "abc")
	if got, err := io.ReadAll(guest); string(got) != "hello" || err != nil {
		t.Fatalf("read %q, %v", got, err)
	}
	c.Becomes(Spliced)
	c.Passed("example.com", "allow@example.com")
	c.Passed("", "allow@any")
	first.State, first.Name, first.Rule, first.In, first.Out = Spliced, "example.com", "allow@any", 3, 5
	all := table.Flows()
	if len(all) != 2 || all[1].Begun.IsZero() {
		t.Fatalf("flows: %+v", all)
	}
	if d := cmp.Diff(first, all[0], cmpopts.EquateComparable(netip.AddrPort{})); d != "" {
		t.Error(d)
	}
	c.Close()
	other.Close()
	other.Close()
	if all := table.Flows(); len(all) != 0 {
		t.Errorf("left: %+v", all)
	}
}

// TestNoTable: owners need not know whether somebody wants to look.
func TestNoTable(t *testing.T) {
	var table *Table
	c := table.Add(Flow{})
	c.Count(1, 1)
	c.Close()
	if len(table.Flows()) > 0 {
		t.Error("a flow in no table")
	}
}

// TestTotals: what has ended counts on, once.
func TestTotals(t *testing.T) {
	var table Table
	a, b := table.Add(Flow{Protocol: policy.TCP}), table.Add(Flow{Protocol: policy.UDP})
	a.Count(1, 2)
	b.Count(30, 40)
	a.Close()
	a.Close()
	want := Totals{Open: map[policy.Protocol]uint64{policy.UDP: 1}, Begun: map[policy.Protocol]uint64{policy.TCP: 1, policy.UDP: 1}, In: 31, Out: 42}
	if d := cmp.Diff(want, table.Totals()); d != "" {
		t.Error(d)
	}
}
