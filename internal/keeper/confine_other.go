//go:build !linux

package keeper

// confine has no counterpart on this system.
func confine(Dirs, ...string) error { return nil }
