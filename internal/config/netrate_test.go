package config

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cutoutdev/cutout/internal/keeper"
)

func TestNetRates(t *testing.T) {
	d := defaultRate
	tests := []struct {
		flags []string
		want  keeper.Rates // zero: an error
	}{
		{nil, keeper.Rates{FromGuest: d, ToGuest: d}},
		{[]string{"10m"}, keeper.Rates{FromGuest: keeper.Rate{Bytes: 10e6, Packets: d.Packets}, ToGuest: keeper.Rate{Bytes: 10e6, Packets: d.Packets}}},
		{[]string{"out:500k,in:2000p"}, keeper.Rates{FromGuest: keeper.Rate{Bytes: 500e3, Packets: d.Packets}, ToGuest: keeper.Rate{Bytes: d.Bytes, Packets: 2000}}},
		{[]string{"off", "in:1g", "in:2g"}, keeper.Rates{ToGuest: keeper.Rate{Bytes: 2e9}}},
		{[]string{"in:off"}, keeper.Rates{FromGuest: d}},
		{[]string{""}, keeper.Rates{}},
		{[]string{"0"}, keeper.Rates{}},
		{[]string{"-1m"}, keeper.Rates{}},
		{[]string{"1.5m"}, keeper.Rates{}},
		{[]string{"10mb"}, keeper.Rates{}},
		{[]string{"up:10m"}, keeper.Rates{}},
		{[]string{"10m,"}, keeper.Rates{}},
		{[]string{"99999999999"}, keeper.Rates{}},
	}
	for _, tt := range tests {
		var net keeper.Net
		err := Boundary{Rates: tt.flags}.rates(&net)
		if tt.want == (keeper.Rates{}) {
			if err == nil || Hint(err) == "" {
				t.Errorf("%q: error is %v, want one with a hint", tt.flags, err)
			}
			continue
		}
		if d := cmp.Diff(tt.want, net.Rates); d != "" || err != nil {
			t.Errorf("%q: %v %s", tt.flags, err, d)
		}
	}
}
