//go:build !(linux && amd64)

package vm

func measureTSC() int { return 0 }
