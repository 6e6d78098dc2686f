//go:build goexperiment.runtimesecret

package secret

import "runtime/secret"

// erasing calls f and erases what it leaves on stack and heap: crypto/tls
// keeps the plain text in an old buffer when its record buffer grows.
func erasing(f func()) { secret.Do(f) }
