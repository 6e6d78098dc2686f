package main

import (
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/cutoutdev/cutout/internal/keeper"
	"github.com/cutoutdev/cutout/internal/term"
)

const unixPrefix = "unix:"

// openMetrics opens the socket of --metrics for the keeper to inherit, nil if
// there is none. It returns where it is, for port 0 may be any.
func openMetrics(at string) (*os.File, string, error) {
	if at == "" {
		return nil, "", nil
	}
	if path, ok := strings.CutPrefix(at, unixPrefix); ok {
		f, err := listenUnix("--metrics", path)
		return f, at, err
	}
	l, err := net.Listen("tcp", at)
	if err != nil {
		return nil, "", term.WithHint(fmt.Errorf("open --metrics: %w", err), "name another port; 0 is any that is free")
	}
	defer l.Close() // File duplicates it
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		return nil, "", fmt.Errorf("open --metrics: %w", err)
	}
	return f, l.Addr().String(), nil
}

// removeMetrics removes what openMetrics has left.
func removeMetrics(at string) {
	if path, ok := strings.CutPrefix(at, unixPrefix); ok {
		os.Remove(path)
	}
}

// metricsNotice says where to ask.
func metricsNotice(at string) keeper.Message {
	if !strings.HasPrefix(at, unixPrefix) {
		at = "http://" + at + "/metrics"
	}
	return keeper.Message{Notice: "metrics are at " + at}
}
