// Package guest is the host's side of the agent that runs in the sandbox: it
// configures the guest, starts commands in it, and moves files in and out.
//
// The guest is hostile. Nothing that it sends makes a [Client] panic, hold
// more than the windows of its own calls, or block beyond the context of a
// call; a breach of the protocol ends the client, and every call with it.
// Text that came from the guest is stripped of control characters, but it is
// the guest's text and no statement of fact.
//
// No value of a secret ever passes through here.
package guest

import (
	"strings"
	"unicode"

	"github.com/cutoutdev/cutout/internal/guest/wire"
)

// What a guest is told and tells.
type (
	Config  = wire.Config
	Volume  = wire.Volume
	Net     = wire.Net
	Command = wire.Command
	Exit    = wire.Exit
	Info    = wire.Info
)

// maxMessage bounds a message from the guest. The longest is an error's text.
const maxMessage = 64 << 10

// maxText bounds guest-chosen text that is handed on.
const maxText = 1 << 10

// printable makes guest-chosen text fit for a line of ours.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + "…"
	}
	return s
}
