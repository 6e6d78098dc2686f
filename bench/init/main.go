//go:build linux

// Command init is the empty init of the bench: it ends the machine as soon
// as it runs.
package main

import "syscall"

func main() { syscall.Reboot(syscall.LINUX_REBOOT_CMD_RESTART) }
