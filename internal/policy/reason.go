package policy

// A Reason says why a placeholder was not substituted or a flow not let
// through. The set is closed: decisions, audit events, refusals and the
// documentation use the same words.
type Reason string

// The reasons. None is the reason of a decision that permits.
const (
	None               Reason = ""
	HostNotAllowed     Reason = "host_not_allowed"
	NotPinned          Reason = "not_pinned"
	PlainHTTP          Reason = "plain_http"
	UpstreamUnverified Reason = "upstream_unverified"
	AuthorityMismatch  Reason = "authority_mismatch"
	SurfaceOff         Reason = "surface_off"
	BadPosition        Reason = "bad_position"
	TooMany            Reason = "too_many"
	TraceMethod        Reason = "trace_method"
	MalformedRequest   Reason = "malformed_request"
	Unscannable        Reason = "unscannable"
	UpgradeRefused     Reason = "upgrade_refused"
	AddressDenied      Reason = "address_denied"
	RuleDenied         Reason = "rule_denied"
	NameDenied         Reason = "name_denied"
	ProtocolDenied     Reason = "protocol_denied"
	NetworkOff         Reason = "network_off"
	UpstreamFailed     Reason = "upstream_failed"
	ProxyFailed        Reason = "proxy_failed"
	ProxyAuthFailed    Reason = "proxy_auth_failed"
	ProxyRefused       Reason = "proxy_refused"
	GuestHandshake     Reason = "guest_handshake"
	LimitReached       Reason = "limit_reached"
	OutOfScope         Reason = "out_of_scope"
	ForeignCredential  Reason = "foreign_credential"
	BodyIsSigned       Reason = "body_is_signed"
	NeedsEqualLength   Reason = "needs_equal_length"
	UnknownCoding      Reason = "unknown_coding"
	BodyTooLarge       Reason = "body_too_large"
	Unsafe             Reason = "unsafe"
	Tunnelled          Reason = "tunnelled"
	AuditUnavailable   Reason = "audit_unavailable"
	SourceUnavailable  Reason = "source_unavailable"
	SecretRemoved      Reason = "secret_removed"
)

type reasonText struct{ what, hint string }

var reasons = map[Reason]reasonText{
	HostNotAllowed:     {"the host is not one that the secret may go to", "add the host to the secret: --secret NAME@HOST"},
	NotPinned:          {"the address was not resolved for this name through the sandbox's resolver", "connect by name, or name the server with --connect-to"},
	PlainHTTP:          {"the request was not encrypted", "use https://"},
	UpstreamUnverified: {"the server's certificate could not be verified for this name", "give its CA with --tls-upstream-ca-cert FILE"},
	AuthorityMismatch:  {"the request names another host than its connection", "send each host's requests on a connection of its own"},
	SurfaceOff:         {"the placeholder stands where this secret is not substituted", "send the credential in a credential header or as Basic authentication"},
	BadPosition:        {"the placeholder stands where no value may ever go", "keep placeholders out of methods, authorities and header names"},
	TooMany:            {"the placeholder occurs too often in one request", "send the credential once"},
	TraceMethod:        {"TRACE and TRACK send the request back", "use another method"},
	MalformedRequest:   {"the request is not strictly well-formed HTTP", "send one Host, one framing and clean header lines"},
	Unscannable:        {"the response cannot be searched for the value", "have the server send it whole, as identity, gzip, deflate, br or zstd, or pass it on with --scrub HOST=lax"},
	UpgradeRefused:     {"this host's connections can change to no protocol but WebSocket, by a correct handshake", "use HTTP or WebSocket"},
	AddressDenied:      {"the network policy denies this address", "allow it with --net-rule allow@ADDRESS, or let it serve a name with --connect-to"},
	RuleDenied:         {"a network rule denies it", "change the rule, or put an --net-rule allow@… before it"},
	NameDenied:         {"the network rules let this name be reached at no address", "allow it with --net-rule allow@NAME"},
	ProtocolDenied:     {"the boundary cannot look into this protocol", "use TCP and HTTPS, to which clients fall back by themselves"},
	NetworkOff:         {"the sandbox has no network", "run without --no-net, or allow something with --net-rule"},
	UpstreamFailed:     {"the server could not be reached", "check that it is up and that its name is right"},
	ProxyFailed:        {"the upstream proxy could not be reached, or answers what no proxy does", "check --egress-proxy, and that the proxy is up"},
	ProxyAuthFailed:    {"the upstream proxy wants a credential, or another one", "give it with --egress-proxy-auth SOURCE, as USER:PASSWORD"},
	ProxyRefused:       {"the upstream proxy does not connect to this server", "ask who runs it, or reach the server without it by --egress-proxy-bypass HOST"},
	GuestHandshake:     {"the guest's client did not complete its TLS handshake", "make it trust the sandbox's CA, which SSL_CERT_FILE and its like name; a client that pins certificates cannot be served"},
	LimitReached:       {"a limit of the sandbox was reached", "close what is not used"},
	OutOfScope:         {"the secret is not for this method and path", "widen its --scope"},
	ForeignCredential:  {"the request carries a credential that is not the sandbox's, to a host where only the secret may be used", "use the placeholder, or drop --exclusive"},
	BodyIsSigned:       {"the request carries a digest or signature of its body, which a substitution would break", "send the credential in a header, or the body without digest"},
	NeedsEqualLength:   {"the length of this kind of body may not change", "use a placeholder as long as the value: --placeholder NAME=shaped"},
	UnknownCoding:      {"the body's coding cannot be decoded", "send it as identity, gzip, deflate, br or zstd"},
	BodyTooLarge:       {"the body is larger than can be held to measure it", "send it chunked or over HTTP/2"},
	Unsafe:             {"the value cannot be written there without changing what surrounds it", "send the credential in a header"},
	Tunnelled:          {"the request runs through a proxy of the guest's, where nobody can say whom it reaches", "connect directly, or have the boundary use the proxy: --egress-proxy URL"},
	SourceUnavailable:  {"the value has expired and could not be refreshed", "cutout audit ID says why; read it anew with cutout modify ID --secret NAME=SOURCE@HOST"},
	SecretRemoved:      {"the secret was taken from the sandbox", "give it back with cutout modify ID --secret NAME@HOST"},
	AuditUnavailable:   {"the audit log cannot be written", "free space in the state directory, and start the sandbox again"},
}

// Reasons returns every reason but None, in no particular order.
func Reasons() []Reason {
	out := make([]Reason, 0, len(reasons))
	for r := range reasons {
		out = append(out, r)
	}
	return out
}

// What says in one clause what the reason means.
func (r Reason) What() string { return reasons[r].what }

// Hint says in one clause what the user can change.
func (r Reason) Hint() string { return reasons[r].hint }
