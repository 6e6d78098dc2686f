package main

import (
	"github.com/spf13/cobra"

	"github.com/cutoutdev/cutout/internal/config"
)

// bindBoundary adds the flags about secrets and the network, which are the
// same for every command that starts a boundary.
func bindBoundary(cmd *cobra.Command, b *config.Boundary) {
	f := cmd.Flags()
	bindRules(f, &b.Rules)
	completeRules(cmd, &b.Rules)
	bindNetwork(cmd, &b.Network)
	f.Var(listFlag{&b.Rates, "RATE"}, "net-rate", "bytes a second each way, such as 10m or out:500k, or packets, in:2000p (default 1250m,100000p)")
	f.Var(textFlag{&b.Egress.Proxy, "URL"}, "egress-proxy", "reach servers through a proxy, http://, https:// or socks5:// (default that of your HTTPS_PROXY; none: none)")
	f.Var(textFlag{&b.Egress.Auth, "SOURCE"}, "egress-proxy-auth", "where the proxy's credential, USER:PASSWORD, comes from, such as env:VAR or file:PATH")
	f.Var(listFlag{&b.Egress.Bypass, "HOST,..."}, "egress-proxy-bypass", "hosts that are reached without the proxy, as in NO_PROXY")
	f.BoolVar(&b.Egress.Names, "egress-proxy-dns", false, "leave names that no resolver here knows to the proxy")
	f.Var(listFlag{&b.ConnectTo, "NAME:PORT=ADDR:PORT"}, "connect-to", "serve a name from elsewhere, such as a mock on this machine")
	f.Var(listFlag{&b.Nameservers, "ADDR[:PORT]"}, "dns-nameserver", "resolver to use instead of the host's")
	f.BoolVar(&b.OnlyAllowed, "dns-only-allowed", false, "resolve no names but those that rules and secrets name")
	f.Var(textFlag{&b.Intercept, "MODE"}, "tls-intercept", "which TLS connections to open: auto (hosts of secrets, default), all or off")
	f.Var(listFlag{&b.Bypass, "PATTERN"}, "tls-bypass", "never open TLS connections to matching hosts")
	f.Var(listFlag{&b.UpstreamCAs, "FILE"}, "tls-upstream-ca-cert", "trust the certificates in this PEM file too")
	f.Var(listFlag{&b.UpstreamCAFor, "HOST=FILE"}, "tls-upstream-ca-cert-for", "trust the certificates in this PEM file for HOST only")
	f.Var(textFlag{&b.Audit, "MODE"}, "audit", "when the audit log cannot be written: strict (default) stops writing values; dangerous: best-effort")
	f.Var(textFlag{&b.Export.Metrics, "[ADDR:]PORT|unix:PATH"}, "metrics", "let Prometheus ask there, at 127.0.0.1 unless ADDR is given")
	f.Var(textFlag{&b.Export.OTLP, "URL"}, "otlp", "send the audit events to an OpenTelemetry collector; env: to that of your OTEL_EXPORTER_OTLP_ variables")
	f.Var(textFlag{&b.Export.Headers, "SOURCE"}, "otlp-headers", "where the headers for the collector, NAME=VALUE,…, come from, such as env:VAR or file:PATH")
	f.Var(textFlag{&b.Export.CA, "FILE"}, "otlp-ca-cert", "trust the certificates in this PEM file for the collector, and no others")
	cmd.RegisterFlagCompletionFunc("otlp", cobra.FixedCompletions([]string{"http://", "https://", config.FromEnvironment}, cobra.ShellCompDirectiveNoFileComp|cobra.ShellCompDirectiveNoSpace))
	cmd.RegisterFlagCompletionFunc("audit", cobra.FixedCompletions([]string{"strict", "best-effort"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.RegisterFlagCompletionFunc("net-rate", cobra.FixedCompletions([]string{"in:", "out:", "off"}, cobra.ShellCompDirectiveNoFileComp|cobra.ShellCompDirectiveNoSpace))
	cmd.RegisterFlagCompletionFunc("egress-proxy", cobra.FixedCompletions([]string{"http://", "https://", "socks5://", config.NoProxy}, cobra.ShellCompDirectiveNoFileComp|cobra.ShellCompDirectiveNoSpace))
	cmd.RegisterFlagCompletionFunc("tls-intercept", cobra.FixedCompletions([]string{"auto", "all", "off"}, cobra.ShellCompDirectiveNoFileComp))
}

// bindPublish adds -p, for what has a network interface.
func bindPublish(cmd *cobra.Command, ports *[]string) {
	cmd.Flags().VarP(listFlag{ports, "[BIND:]HOST:GUEST[/udp]"}, "publish", "p", "publish a port of the guest on this machine, at 127.0.0.1 unless BIND is given")
	cmd.RegisterFlagCompletionFunc("publish", cobra.NoFileCompletions)
}
