package main

import (
	"github.com/spf13/cobra"

	"github.com/cutoutdev/cutout/internal/config"
)

// networkHelp explains the flags of bindNetwork.
const networkHelp = `Network rules; the first that matches decides, then the profile of --net:

  --net-rule ACTION[:DIRECTION]@TARGET[:PROTOCOL[:PORTS]]. ACTION is allow or
    deny, DIRECTION egress (default), ingress or any, PROTOCOL tcp, udp, icmp or
    any, PORTS 443, 8000-8099 or a list with commas. TARGET is an address, a
    prefix, a name, *.SUFFIX or a group: public, private, host (this machine),
    loopback, link-local, meta (cloud metadata), multicast, any, or dns (the
    sandbox's resolver). A name opens its public addresses only; a private one
    takes a rule about the address.
  --net public (default), private (and private networks), host (and this
    machine), all, or none, which is --no-net.
  host.cutout.internal is this machine's loopback, reached where a rule or
    --net host allows it, such as --net-rule allow@host:tcp:8080.`

// bindNetwork adds the flags about the network, which are the same for every
// command that knows of it.
func bindNetwork(cmd *cobra.Command, n *config.Network) {
	f := cmd.Flags()
	f.BoolVar(&n.Off, "no-net", false, "no network at all but what a rule allows")
	f.Var(textFlag{&n.Profile, "PROFILE"}, "net", "what may be reached: public (default), private, host, all or none")
	f.Var(listFlag{&n.Rules, "RULE"}, "net-rule", "allow or deny before the profile, such as allow@10.0.0.5:tcp:443")
	f.Var(textFlag{&n.Default, "ACTION"}, "net-default", "allow or deny what no rule decides, in place of --net")
	f.Var(textFlag{&n.DefaultEgress, "ACTION"}, "net-default-egress", "the same for what the guest begins")
	f.Var(textFlag{&n.DefaultIngress, "ACTION"}, "net-default-ingress", "the same for what comes to published ports")
	words := map[string][]string{"net": config.NetProfiles()}
	for _, flag := range []string{"net-default", "net-default-egress", "net-default-ingress"} {
		words[flag] = []string{"allow", "deny"}
	}
	for flag, list := range words {
		cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(list, cobra.ShellCompDirectiveNoFileComp))
	}
	cmd.RegisterFlagCompletionFunc("net-rule", cobra.FixedCompletions(config.NetRuleStarts(), cobra.ShellCompDirectiveNoFileComp|cobra.ShellCompDirectiveNoSpace))
}
