package main

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/ca"
	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/pin"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/proxy"
	"github.com/cutoutdev/cutout/internal/secret"
)

// libraryName is the name under which memscan re-executes itself as a program
// that uses store and proxy and goes on without them.
const libraryName = "memscan-library"

// What the library's process has inherited: the value, and what it is told.
const libraryValue = 3

const libraryPlaceholder = "$MSB_CANARY"

// target is where the guest of the library believes its host to be.
var target = netip.MustParseAddrPort("93.184.216.34:443")

// libraryMain serves guests at a socket until it is told to stop, then lives
// on. Its arguments are the value's length, the upstream's address, the file
// with its roots, and a directory.
func libraryMain() {
	if err := library(os.Args[1:]); err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
}

func library(args []string) error {
	var n int
	if len(args) != 4 {
		return errors.New("wrong arguments")
	}
	if _, err := fmt.Sscan(args[0], &n); err != nil {
		return err
	}
	upstream, dir := args[1], args[3]
	roots, err := os.ReadFile(args[2])
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(roots)

	store, err := secret.NewStore(secret.Room([]int{n}))
	if err != nil {
		return err
	}
	value, err := store.ReadValue(libraryValue, n)
	if err != nil {
		return err
	}
	pattern, err := hostname.ParsePattern(host)
	if err != nil {
		return err
	}
	set, err := secret.NewSet([]*secret.Secret{{
		Name: "CANARY", Placeholder: libraryPlaceholder, Value: value,
		Hosts: []secret.Host{{Pattern: pattern, Port: 443}},
	}})
	if err != nil {
		return err
	}
	log, err := audit.Create(filepath.Join(dir, "audit.jsonl"), audit.Config{})
	if err != nil {
		return err
	}
	authority, err := ca.New(ca.Config{Allow: set.HasHost})
	if err != nil {
		return err
	}
	pins := new(pin.Table)
	pins.Add(hostname.Name(host), target.Addr(), time.Hour)
	p, err := proxy.New(proxy.Config{
		Secrets: func() *secret.Set { return set }, Store: store, CA: authority, Pins: pins, Audit: log, Roots: pool,
		Network: &policy.Network{Local: func(netip.Addr) bool { return false }},
		Dial: func(ctx context.Context, _ netip.AddrPort) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", upstream)
		},
	})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	block, _ := pem.Decode(authority.CertPEM())
	fmt.Printf("ready %s %s %x\n", l.Addr(), store.Kind(), block.Bytes)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var flows sync.WaitGroup
	flows.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			flows.Go(func() {
				p.ServeTCP(ctx, proxy.Flow{
					Src: netip.MustParseAddrPort("10.99.0.2:40000"), Dst: target,
					Accept: func() (net.Conn, error) { return c, nil }, Refuse: func() { c.Close() },
				})
			})
		}
	})

	in := bufio.NewReader(os.Stdin)
	if _, err := in.ReadString('\n'); err != nil {
		return err
	}
	cancel()
	l.Close()
	flows.Wait()
	err = errors.Join(store.Close(), log.Close())
	// The program goes on to other things.
	fmt.Println("stopped")
	io.Copy(io.Discard, in)
	return err
}

// readyLine is what libraryMain says first.
func readyLine(line string) (addr, kind string, root *x509.Certificate, err error) {
	var der []byte
	if _, err := fmt.Sscanf(strings.TrimSpace(line), "ready %s %s %x", &addr, &kind, &der); err != nil {
		return "", "", nil, fmt.Errorf("the library's process said %q", line)
	}
	root, err = x509.ParseCertificate(der)
	return addr, kind, root, err
}
