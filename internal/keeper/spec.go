package keeper

import (
	"net/netip"
	"time"

	"github.com/cutoutdev/cutout/internal/egress"
	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/ingress"
	"github.com/cutoutdev/cutout/internal/otlp"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/secret"
)

// A Spec is everything that a sandbox is made of except values. It is what
// the CLI hands to the keeper, as JSON.
type Spec struct {
	ID      string   `json:"id"`
	Version string   `json:"version,omitempty"` // of the program
	Dirs    Dirs     `json:"dirs"`
	Link    LinkKind `json:"link,omitempty"` // "" = a machine of ours
	Machine Machine  `json:"machine"`
	Guest   Guest    `json:"guest"`
	Net     Net      `json:"net"`
	TLS     TLS      `json:"tls"`

	Secrets     []secret.Secret  `json:"secrets"` // without values
	OnViolation secret.Violation `json:"on_violation"`
	Scrub       []ScrubRule      `json:"scrub,omitempty"` // the last that matches wins

	Metrics string     `json:"metrics,omitempty"` // where they can be asked for; "" = nowhere
	OTLP    *otlp.Spec `json:"otlp,omitempty"`    // the collector that gets the events

	AuditBestEffort bool `json:"audit_best_effort,omitempty"` // values are written also when the audit log cannot be
}

// Dirs are the sandbox's directories; the CLI has made both, mode 0700.
type Dirs struct {
	Runtime string `json:"runtime"` // control socket
	State   string `json:"state"`   // audit log, console
}

// A Machine is the virtual hardware and what it starts from.
type Machine struct {
	Kernel    string   `json:"kernel"`
	Initrd    string   `json:"initrd"`
	Disk      string   `json:"disk"` // the image, read-only ext4
	Volumes   []Volume `json:"volumes"`
	MemoryMiB int      `json:"memory_mib"`
	CPUs      int      `json:"cpus"`
	WeakCage  bool     `json:"weak_cage"`
	Snapshots string   `json:"snapshots,omitempty"` // directory of machines that have booted; "" = always boot
}

// A Volume is a directory of the host that the guest sees a copy of.
type Volume struct {
	Source string `json:"source"` // directory on the host
	Target string `json:"target"` // absolute path in the guest
}

// A Guest is what the guest is told about itself.
type Guest struct {
	Hostname string   `json:"hostname"`
	Env      []string `json:"env"` // of every command; placeholders are added by the keeper
}

// A Net is what the sandbox may reach.
type Net struct {
	Profile     policy.Profile   `json:"profile,omitempty"` // "" = public
	Rules       []policy.Rule    `json:"rules,omitempty"`   // asked before the profile
	DenyIngress bool             `json:"deny_ingress,omitempty"`
	Published   []ingress.Port   `json:"published,omitempty"`
	Rates       Rates            `json:"rates"`
	Nameservers []netip.AddrPort `json:"nameservers"`                // none = the host's
	OnlyAllowed bool             `json:"dns_only_allowed,omitempty"` // resolve no name but those of rules and secrets
	ConnectTo   []ConnectTo      `json:"connect_to"`
	Egress      *egress.Spec     `json:"egress,omitempty"` // the upstream proxy
}

// Rates bound what passes each way.
type Rates struct {
	FromGuest Rate `json:"from_guest"`
	ToGuest   Rate `json:"to_guest"`
}

// A Rate is an amount a second; 0 is no bound.
type Rate struct {
	Bytes   float64 `json:"bytes,omitempty"`
	Packets float64 `json:"packets,omitempty"`
}

// Policy is what the net permits.
func (n Net) Policy() *policy.Network {
	return &policy.Network{Rules: n.Rules, Profile: n.Profile, DenyIngress: n.DenyIngress}
}

// Off reports whether the machine needs no network card.
func (n Net) Off() bool {
	return n.Policy().Off() && len(n.Published) == 0
}

// A ConnectTo lets To serve connections to Name:Port.
type ConnectTo struct {
	Name hostname.Name  `json:"name"`
	Port uint16         `json:"port"`
	To   netip.AddrPort `json:"to"`
}

// A TLS says which connections are opened and whom upstream is believed.
type TLS struct {
	Intercept string             `json:"intercept"` // auto, all, off
	Bypass    []hostname.Pattern `json:"bypass"`
	CAs       []UpstreamCA       `json:"cas"`                 // besides the host's roots
	NoVerify  []hostname.Name    `json:"no_verify,omitempty"` // hosts whose certificate is not verified
}

// An UpstreamCA is a bundle that may vouch for the hosts of For, or for any
// if For is nil.
type UpstreamCA struct {
	For *hostname.Pattern `json:"for,omitempty"`
	PEM []byte            `json:"pem"`
}

// A ScrubRule says how the answers of hosts are searched for values.
type ScrubRule struct {
	Hosts *hostname.Pattern `json:"hosts,omitempty"` // nil = every host
	Mode  string            `json:"mode"`            // on, lax, off; all, without Hosts: on, and not for secrets' hosts alone
}

// A Command is what runs in the guest.
type Command struct {
	Args []string `json:"args"`
	Env  []string `json:"env,omitempty"`
	Dir  string   `json:"dir,omitempty"`
	User string   `json:"user,omitempty"`
	TTY  bool     `json:"tty,omitempty"`
	Rows uint16   `json:"rows,omitempty"`
	Cols uint16   `json:"cols,omitempty"`
}

// Limits of the conversation between client and keeper.
const (
	maxSpec      = 16 << 20         // CA bundles and the environment, generously
	readyTimeout = 10 * time.Minute // a boot under emulation on a busy machine, with one retry
)
