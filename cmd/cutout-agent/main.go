// Command cutout-agent is the first process of a sandbox's guest. It is run by
// the guest's kernel as /init, from an initial file system that holds nothing
// else but kernel modules, and does what package agent says.
package main

import (
	"fmt"
	"os"

	"github.com/cutoutdev/cutout/internal/guest/agent"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "cutout-agent: this is the first process of a sandbox's guest, not a command to be called")
		os.Exit(1)
	}
	agent.Main()
}
