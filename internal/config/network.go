package config

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/keeper"
)

// ParseConnectTo reads NAME:PORT=ADDR:PORT.
func ParseConnectTo(s string) (keeper.ConnectTo, error) {
	usage := "write --connect-to NAME:PORT=ADDR:PORT, for example api.example.test:443=127.0.0.1:8443"
	name, to, ok := strings.Cut(s, "=")
	if !ok {
		return keeper.ConnectTo{}, hinted(fmt.Sprintf("invalid --connect-to %q", s), usage)
	}
	from, err := hostname.ParseAuthority(name)
	if err != nil || from.Port == 0 {
		return keeper.ConnectTo{}, hinted(fmt.Sprintf("invalid --connect-to %q: %q is not NAME:PORT", s, name), usage)
	}
	dst, err := netip.ParseAddrPort(strings.Replace(to, "localhost:", "127.0.0.1:", 1))
	if err != nil || dst.Port() == 0 || dst.Addr().IsUnspecified() || dst.Addr().IsMulticast() {
		return keeper.ConnectTo{}, hinted(fmt.Sprintf("invalid --connect-to %q: %q is not ADDR:PORT", s, to), usage)
	}
	return keeper.ConnectTo{Name: from.Host, Port: from.Port, To: netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port())}, nil
}

// ParseNameserver reads ADDR[:PORT], port 53 if none is written.
func ParseNameserver(s string) (netip.AddrPort, error) {
	if addr, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return netip.AddrPortFrom(addr.Unmap(), 53), nil
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil || ap.Port() == 0 {
		return netip.AddrPort{}, hinted(fmt.Sprintf("invalid --dns-nameserver %q", s), "write ADDR or ADDR:PORT")
	}
	return ap, nil
}

// ReadUpstreamCA reads the PEM certificates of file. It fails if there are
// none.
func ReadUpstreamCA(file string) ([]byte, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read CA bundle: %w", err)
	}
	var out []byte
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue // a private key beside the certificate stays where it is
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return nil, fmt.Errorf("CA bundle %s: %w", file, err)
		}
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})...)
	}
	if len(out) == 0 {
		return nil, hinted(fmt.Sprintf("CA bundle %s holds no certificate", file), "give a PEM file")
	}
	return out, nil
}

// ParseUpstreamCAFor reads HOST=FILE and the file.
func ParseUpstreamCAFor(s string) (keeper.UpstreamCA, error) {
	host, file, ok := strings.Cut(s, "=")
	if !ok || file == "" {
		return keeper.UpstreamCA{}, hinted(fmt.Sprintf("invalid --tls-upstream-ca-cert-for %q", s), "write HOST=FILE")
	}
	p, err := hostname.ParsePattern(host)
	if err != nil {
		return keeper.UpstreamCA{}, fmt.Errorf("--tls-upstream-ca-cert-for: %w", err)
	}
	pemData, err := ReadUpstreamCA(file)
	return keeper.UpstreamCA{For: &p, PEM: pemData}, err
}

// ParseMemory reads a size of memory as docker writes it, 512m, 2g, or a
// bare number of MiB, and returns MiB.
func ParseMemory(s string) (int, error) {
	text, unit := strings.ToLower(s), 1<<20
	text = strings.TrimSuffix(strings.TrimSuffix(text, "b"), "i")
	switch {
	case strings.HasSuffix(text, "g"):
		text, unit = text[:len(text)-1], 1<<30
	case strings.HasSuffix(text, "m"):
		text = text[:len(text)-1]
	}
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return 0, hinted(fmt.Sprintf("invalid memory size %q", s), "write 512m or 2g")
	}
	mib := int(n) * (unit >> 20)
	if mib < minMemory || mib > maxMemory {
		return 0, hinted(fmt.Sprintf("memory size %q is outside of what a guest can have", s), fmt.Sprintf("%dm to %dg", minMemory, maxMemory>>10))
	}
	return mib, nil
}

// A kernel, the agent and a shell need the least, with some room; the most is
// what an emulated processor has addresses for.
const (
	minMemory = 128
	maxMemory = 1 << 20
)

// ParseVolume reads HOST:GUEST:ro.
func ParseVolume(s string) (keeper.Volume, error) {
	host, rest, ok := strings.Cut(s, ":")
	guest, mode, _ := strings.Cut(rest, ":")
	switch {
	case !ok || host == "" || !strings.HasPrefix(guest, "/"):
		return keeper.Volume{}, hinted(fmt.Sprintf("invalid volume %q", s), "write -v DIR:/PATH:ro")
	case mode != "ro":
		return keeper.Volume{}, hinted(fmt.Sprintf("volume %q would be writable, which is not supported yet", s),
			fmt.Sprintf("write -v %s:%s:ro, or bring files in with --copy %s:%s", host, guest, host, guest))
	}
	info, err := os.Stat(host)
	switch {
	case err != nil:
		return keeper.Volume{}, fmt.Errorf("volume %q: %w", s, err)
	case !info.IsDir():
		return keeper.Volume{}, hinted(fmt.Sprintf("volume %q: %s is not a directory", s, host), "bring a file in with --copy")
	}
	source, err := filepath.Abs(host) // the keeper works elsewhere
	if err != nil {
		return keeper.Volume{}, fmt.Errorf("volume %q: %w", s, err)
	}
	return keeper.Volume{Source: source, Target: guest}, nil
}
