//go:build !goexperiment.runtimesecret

package secret

// erasing calls f. Built with GOEXPERIMENT=runtimesecret it would also erase
// what f leaves on stack and heap; without, GODEBUG=clobberfree=1, which a
// keeper has, makes the collector do so.
func erasing(f func()) { f() }
