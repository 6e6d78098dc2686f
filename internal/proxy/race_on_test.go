//go:build race

package proxy

// raced: the race detector makes pools forget and slows all down; what a test
// measures of memory is then its own.
const raced = true
