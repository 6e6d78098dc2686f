package config

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/cutoutdev/cutout/internal/keeper"
)

// defaultRate holds in both directions where no --net-rate does: what a fast
// network card carries, and as many packets as cost about half a processor,
// so that a guest that floods leaves the rest to others.
var defaultRate = keeper.Rate{Bytes: 1_250_000_000, Packets: 100_000}

const rateUsage = "write [in:|out:]BYTES or [in:|out:]PACKETSp, a second each, such as 10m, out:500k or in:2000p; off is no limit"

// ParseNetRate reads one --net-rate, a list with commas, into r.
func ParseNetRate(s string, r *keeper.Rates) error {
	for item := range strings.SplitSeq(s, ",") {
		text := item
		both := []*keeper.Rate{&r.FromGuest, &r.ToGuest}
		if in, ok := strings.CutPrefix(text, "in:"); ok {
			text, both = in, both[1:]
		} else if out, ok := strings.CutPrefix(text, "out:"); ok {
			text, both = out, both[:1]
		}
		if text == "off" {
			for _, rate := range both {
				*rate = keeper.Rate{}
			}
			continue
		}
		number, packets := strings.CutSuffix(text, "p")
		n, err := parseRate(number)
		if err != nil {
			return hinted(fmt.Sprintf("invalid --net-rate %q", item), rateUsage)
		}
		for _, rate := range both {
			if packets {
				rate.Packets = n
			} else {
				rate.Bytes = n
			}
		}
	}
	return nil
}

// parseRate reads a positive number with k, m or g for thousands.
func parseRate(s string) (float64, error) {
	unit := 1.0
	for _, u := range []struct {
		suffix string
		factor float64
	}{{"k", 1e3}, {"m", 1e6}, {"g", 1e9}} {
		if number, ok := strings.CutSuffix(s, u.suffix); ok {
			s, unit = number, u.factor
			break
		}
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is not a rate", s)
	}
	return float64(n) * unit, nil
}

// rates reads all of them.
func (b Boundary) rates(net *keeper.Net) error {
	net.Rates = keeper.Rates{FromGuest: defaultRate, ToGuest: defaultRate}
	return each("net-rate", b.Rates, func(text string) error { return ParseNetRate(text, &net.Rates) })
}
