package wire

import (
	"net/netip"
	"time"
)

// Hello is the agent's first message. A host whose guest goes on from a
// snapshot says it first, so that the agent begins anew.
type Hello struct {
	Version int
	Uptime  time.Duration // of the guest's kernel when the agent began
}

// Reply answers a call. An empty Error is success.
type Reply struct {
	Error     string `json:",omitempty"`
	NeedRoots bool   `json:",omitempty"` // Configure: the image has no roots of its own
	Info      *Info  `json:",omitempty"` // Stat
}

// A PrepareRequest asks for all that can be done for any sandbox of an image,
// before there is one.
type PrepareRequest struct {
	RootSerial string // as in Config
}

// Config is what a guest needs to know before it runs a command. It holds
// nothing secret: the guest is hostile.
type Config struct {
	Hostname   string
	Time       time.Time // zero: the clock is left alone
	Entropy    []byte    // credited to the guest's random number generator
	RootSerial string    // disk with the read-only root file system (ext4), unless prepared
	Volumes    []Volume
	Net        *Net   // nil: loopback only
	CA         []byte // PEM, the sandbox's own CA; empty: trust is left alone
	Roots      []byte // PEM, used only if the image has no roots of its own
}

// A Volume is a disk that is mounted read-only (ext4) at an absolute path.
type Volume struct {
	Serial string
	Path   string
}

// Net configures the guest's only network interface.
type Net struct {
	MAC      string // finds the interface
	Addr4    netip.Prefix
	Addr6    netip.Prefix
	Gateway4 netip.Addr
	Gateway6 netip.Addr
	DNS      []netip.Addr // for resolv.conf; empty: the gateways
	MTU      int          // 0: the device's own
}

// A Command is what Start runs. Args and Env may hold any bytes but NUL.
type Command struct {
	Args []string
	Env  []string // added to, and winning over, the defaults (PATH, HOME, trust)
	Dir  string   // made if missing; empty: /
	User string   // name|uid[:group|gid] as in the image's passwd; empty: root

	TTY        bool // stdin, stdout and stderr are one terminal; its output is Stdout
	Rows, Cols uint16
}

// A RootsRequest gives the certificates for an image that has none.
type RootsRequest struct{ PEM []byte }

// StartRequest is a Command on the wire, where JSON would mangle strings that
// are not UTF-8.
type StartRequest struct {
	Args, Env  [][]byte
	Dir, User  string
	TTY        bool   `json:",omitempty"`
	Rows, Cols uint16 `json:",omitempty"`
}

// Exit tells how a command ended.
type Exit struct {
	Code          int    // its status; 128+n if signal n ended it; 126 and 127 as below
	NotFound      bool   `json:",omitempty"` // 127: there is no such command
	NotExecutable bool   `json:",omitempty"` // 126: there is, but it cannot be run
	Reason        string `json:",omitempty"` // why it could not be started
}

// A PathRequest names a path in the guest.
type PathRequest struct {
	Path  string
	Upper bool `json:",omitempty"` // Get: what the guest wrote, not Path
}

// Info describes a path. The zero Info is a path that does not exist.
type Info struct {
	Exists bool
	Dir    bool // symbolic links are followed
}

// A ClockRequest sets the guest's clock.
type ClockRequest struct{ Time time.Time }

// A SignalRequest goes to the process group of a command.
type SignalRequest struct{ Number int }

// A ResizeRequest sets the window size of a command's terminal.
type ResizeRequest struct{ Rows, Cols uint16 }
