//go:build !goexperiment.runtimesecret

package secret

// erasing calls f. Built with GOEXPERIMENT=runtimesecret it would also erase
// what f leaves on stack and heap; without, linking with
// -X runtime.godebugDefault=clobberfree=1 makes the collector do so.
func erasing(f func()) { f() }
