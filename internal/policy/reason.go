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
	ProtocolDenied     Reason = "protocol_denied"
	NetworkOff         Reason = "network_off"
	UpstreamFailed     Reason = "upstream_failed"
	GuestHandshake     Reason = "guest_handshake"
	LimitReached       Reason = "limit_reached"
	AuditUnavailable   Reason = "audit_unavailable"
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
	Unscannable:        {"the response cannot be searched for the value", "ask for an identity, gzip, br or zstd response"},
	UpgradeRefused:     {"this host's connections cannot change protocol", "use HTTP"},
	AddressDenied:      {"the network policy denies this address", "see --no-net and --connect-to"},
	ProtocolDenied:     {"the network policy denies this protocol", "use TCP; QUIC clients fall back by themselves"},
	NetworkOff:         {"the sandbox has no network", "run without --no-net"},
	UpstreamFailed:     {"the server could not be reached", "check that it is up and that its name is right"},
	GuestHandshake:     {"the guest's client did not complete its TLS handshake", "make it trust the sandbox's CA, which SSL_CERT_FILE and its like name; a client that pins certificates cannot be served"},
	LimitReached:       {"a limit of the sandbox was reached", "close what is not used"},
	AuditUnavailable:   {"the audit log cannot be written", "free space in the state directory"},
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
