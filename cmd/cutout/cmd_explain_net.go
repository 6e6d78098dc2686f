package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cutoutdev/cutout/internal/config"
	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/keeper"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/term"
)

func (a *app) explainNetCommand() *cobra.Command {
	var network config.Network
	var protocol, dst string
	var onlyAllowed, ingress, asJSON bool
	cmd := &cobra.Command{
		Use:   "net [flags] HOST[:PORT]",
		Short: "Say which network rule decides on a connection",
		Long: `Net judges a connection to HOST, a name or an address, as the boundary would,
without making it and without a sandbox. Of a name it is taken for granted that
the sandbox resolved it to a public address, and in TLS asks for it; --dst
gives another address. Without PORT it is 443. With --ingress HOST is the
address of whoever connects to the published PORT of the guest.

` + networkHelp + `

Exit status: 0 when the connection would pass, 1 when not, 2 when the command
line is wrong.`,
		Example: `  cutout explain net api.example.com
  cutout explain net --net-rule allow@10.0.0.5:tcp:5432 --json 10.0.0.5:5432`,
		Args:              usage(cobra.ExactArgs(1)),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(_ *cobra.Command, args []string) error {
			var net keeper.Net
			if err := network.Apply(&net); err != nil {
				return usageError{err}
			}
			x, err := newNetExplanation(&net, args[0], protocol, dst, ingress, onlyAllowed)
			if err != nil {
				return usageError{err}
			}
			if err := x.print(a, asJSON); err != nil {
				return err
			}
			if !x.Allowed {
				return &exitError{code: exitFailed}
			}
			return nil
		},
	}
	bindNetwork(cmd, &network)
	f := cmd.Flags()
	f.BoolVar(&onlyAllowed, "dns-only-allowed", false, "resolve no names but those that rules name")
	f.StringVar(&protocol, "proto", "tcp", "tcp, udp or icmp")
	f.BoolVar(&ingress, "ingress", false, "judge a connection to a published port")
	f.StringVar(&dst, "dst", "", "the address that HOST has")
	f.BoolVar(&asJSON, "json", false, "print one JSON object")
	cmd.RegisterFlagCompletionFunc("proto", cobra.FixedCompletions([]string{"tcp", "udp", "icmp"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// A netExplanation is what the boundary would make of a connection.
type netExplanation struct {
	Host     string          `json:"host"`
	Port     uint16          `json:"port,omitempty"`
	Protocol policy.Protocol `json:"protocol"`
	Address  string          `json:"address,omitempty"` // "" = some public one
	policy.Verdict
	Hint string `json:"hint,omitempty"`
}

// somewhere is a public address that no rule is about: of a range that is
// global unicast and was given back.
var somewhere = netip.MustParseAddr("3ffe::1")

func newNetExplanation(n *keeper.Net, target, protocol, dst string, ingress, onlyAllowed bool) (*netExplanation, error) {
	x := &netExplanation{Protocol: policy.Protocol(protocol), Port: 443}
	switch x.Protocol {
	case policy.TCP, policy.UDP:
	case policy.ICMP:
		x.Port = 0
	default:
		return nil, term.WithHint(fmt.Errorf("unknown --proto %q", protocol), "use tcp, udp or icmp")
	}
	q := policy.Query{Direction: policy.Egress, Protocol: x.Protocol}
	if ingress {
		q.Direction = policy.Ingress
	}
	addr, name, err := x.parse(target)
	if err != nil {
		return nil, err
	}
	if dst != "" {
		if addr, err = netip.ParseAddr(dst); err != nil {
			return nil, fmt.Errorf("--dst %q is not an address", dst)
		}
	}
	p := n.Policy()
	switch {
	case addr.IsValid():
		x.Address = addr.Unmap().String()
	case name == policy.HostName:
		addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case ingress:
		return nil, term.WithHint(fmt.Errorf("%s has no address", name), "write the address of whoever connects")
	default:
		addr = somewhere
	}
	q.Addr, q.Port = addr.Unmap(), x.Port
	if name != "" {
		q.Names = []hostname.Name{name}
		if x.Protocol == policy.TCP {
			q.ServerName, q.Spoken = name, true
		}
		if v := p.Lookup(name, onlyAllowed, false); name != policy.HostName && !v.Allowed {
			x.Verdict = v
			x.Hint = v.Reason.Hint()
			return x, nil
		}
	}
	x.Verdict = p.Decide(q)
	x.Hint = x.Reason.Hint()
	return x, nil
}

// parse reads HOST[:PORT].
func (x *netExplanation) parse(target string) (addr netip.Addr, name hostname.Name, err error) {
	if ap, err := netip.ParseAddrPort(target); err == nil {
		x.Host, x.Port = ap.Addr().String(), ap.Port()
		return ap.Addr(), "", nil
	}
	if addr, err := netip.ParseAddr(strings.Trim(target, "[]")); err == nil {
		x.Host = addr.String()
		return addr, "", nil
	}
	a, err := hostname.ParseAuthority(target)
	if err != nil {
		return addr, "", term.WithHint(fmt.Errorf("%q is neither a name nor an address", target), "write HOST or HOST:PORT")
	}
	if a.Port != 0 {
		x.Port = a.Port
	}
	x.Host = string(a.Host)
	return addr, a.Host, nil
}

func (x *netExplanation) print(a *app, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(a.stdout).Encode(x)
	}
	var b strings.Builder
	b.WriteString(x.Host)
	if x.Port != 0 {
		fmt.Fprintf(&b, " port %d", x.Port)
	}
	fmt.Fprintf(&b, " by %s: %s\n", x.Protocol, map[bool]string{true: "allowed", false: "denied"}[x.Allowed])
	if x.Class != "" {
		fmt.Fprintf(&b, "  address: %s\n", x.Class)
	}
	fmt.Fprintf(&b, "  decided by: %s\n", x.Rule)
	if x.Reason != policy.None {
		fmt.Fprintf(&b, "  %s: %s\n  hint: %s\n", x.Reason, x.Reason.What(), x.Hint)
	}
	_, err := fmt.Fprint(a.stdout, b.String())
	return err
}
