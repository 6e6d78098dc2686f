package config

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/cutoutdev/cutout/internal/ingress"
	"github.com/cutoutdev/cutout/internal/keeper"
	"github.com/cutoutdev/cutout/internal/policy"
)

// maxPublished bounds the published ports: each has a socket and a goroutine
// that waits.
const maxPublished = 256

const publishUsage = "write -p HOST:GUEST, with an address before and /udp behind if need be, such as -p 127.0.0.1:8080:80"

// loopback is where ports are published unless another address is given: who
// has an account here, and nobody else.
var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// ParsePublish reads [BIND:][HOST:]GUEST[/tcp|/udp], where HOST and GUEST are
// ports or ranges of equal length. HOST 0 or none is any free port.
func ParsePublish(s string) ([]ingress.Port, error) {
	fail := func(what, hint string) ([]ingress.Port, error) {
		return nil, hinted(fmt.Sprintf("invalid -p %q: %s", s, what), hint)
	}
	text, protocol, given := strings.Cut(s, "/")
	if !given {
		protocol = string(policy.TCP)
	}
	if protocol != string(policy.TCP) && protocol != string(policy.UDP) {
		return fail(fmt.Sprintf("unknown protocol %q", protocol), "use tcp or udp")
	}
	guest, rest := cutLast(text)
	host, bind := cutLast(rest)
	addr := loopback
	if strings.Contains(rest, ":") && bind == "" {
		return fail("the address is empty", publishUsage)
	}
	if bind != "" && bind != "localhost" {
		var err error
		if addr, err = netip.ParseAddr(unbracket(bind)); err != nil || addr.Zone() != "" {
			return fail(fmt.Sprintf("%q is not an address of this machine", bind), publishUsage)
		}
	}
	to, err := parsePorts(guest)
	if err != nil || len(to) != 1 {
		return fail(fmt.Sprintf("%q is not a port of the guest", guest), publishUsage)
	}
	from := policy.Ports{}
	if host != "" && host != "0" {
		list, err := parsePorts(host)
		switch {
		case err != nil || len(list) != 1:
			return fail(fmt.Sprintf("%q is not a port of this machine", host), publishUsage)
		case list[0].Last-list[0].First != to[0].Last-to[0].First:
			return fail("the ranges are not equally long", publishUsage)
		}
		from = list[0]
	}
	var out []ingress.Port
	for n := 0; n <= int(to[0].Last-to[0].First); n++ {
		p := ingress.Port{Protocol: policy.Protocol(protocol), Guest: to[0].First + uint16(n)}
		if from.First != 0 {
			p.Listen = netip.AddrPortFrom(addr.Unmap(), from.First+uint16(n))
		} else {
			p.Listen = netip.AddrPortFrom(addr.Unmap(), 0)
		}
		out = append(out, p)
	}
	return out, nil
}

func (b Boundary) publish(spec *keeper.Spec) (err error) {
	spec.Net.Published, err = parsePublished(b.Published)
	return err
}

// parsePublished reads all of them.
func parsePublished(texts []string) ([]ingress.Port, error) {
	var out []ingress.Port
	taken := make(map[ingress.Port]string)
	err := each("publish", texts, func(text string) error {
		ports, err := ParsePublish(text)
		if err != nil {
			return err
		}
		for _, p := range ports {
			place := ingress.Port{Protocol: p.Protocol, Listen: p.Listen}
			if other, ok := taken[place]; ok && p.Listen.Port() != 0 {
				return fmt.Errorf("-p %s and -p %s take the same port of this machine", other, text)
			}
			taken[place] = text
		}
		if out = append(out, ports...); len(out) > maxPublished {
			return fmt.Errorf("more than %d published ports", maxPublished)
		}
		return nil
	})
	return out, err
}

// cutLast cuts s at its last colon outside of brackets.
func cutLast(s string) (last, before string) {
	i := strings.LastIndexByte(s, ':')
	if i < strings.LastIndexByte(s, ']') {
		i = -1
	}
	if i < 0 {
		return s, ""
	}
	return s[i+1:], s[:i]
}

// unbracket takes the brackets from an IPv6 address; without them its colons
// would be read as something else.
func unbracket(s string) string {
	if in, ok := strings.CutPrefix(s, "["); ok {
		if in, ok := strings.CutSuffix(in, "]"); ok {
			return in
		}
	}
	return s
}
