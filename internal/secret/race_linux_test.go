//go:build race

package secret

func init() { raceBuild = true }
