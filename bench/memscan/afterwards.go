package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/cutoutdev/cutout/internal/keeper"
	"github.com/cutoutdev/cutout/internal/testnet"
)

// runLibrary is the table's part about a process that used store and proxy as
// libraries, and outlives them. It reports whether nothing was left.
func runLibrary() (clean bool, err error) {
	dir, err := os.MkdirTemp("", "cutout-memscan-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	ca, err := testnet.NewCA()
	if err != nil {
		return false, err
	}
	roots := filepath.Join(dir, "ca.pem")
	if err := ca.WriteFile(roots); err != nil {
		return false, err
	}
	value := newValue()
	u, err := newUpstream(ca, value)
	if err != nil {
		return false, err
	}
	defer u.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return false, err
	}
	cmd := exec.Command("/proc/self/exe", strconv.Itoa(len(value)), u.Addr().String(), roots, dir)
	cmd.Args[0] = libraryName
	cmd.Env = []string{keeper.RuntimeSettings}
	cmd.ExtraFiles = []*os.File{r}
	cmd.Stderr = os.Stderr
	in, err1 := cmd.StdinPipe()
	stdout, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		return false, err
	}
	defer cmd.Wait()
	defer in.Close()
	r.Close()
	io.WriteString(w, value)
	w.Close()
	out := bufio.NewReader(stdout)
	line, err := out.ReadString('\n')
	if err != nil {
		return false, err
	}
	addr, kind, root, err := readyLine(line)
	if err != nil {
		return false, err
	}
	if kind != "memfd_secret" {
		fmt.Printf("the locked store can be read here (%s), and is counted\n", kind)
	}
	scan, err := newScanner(cmd.Process.Pid, value)
	if err != nil {
		return false, err
	}
	clean = true
	look := func(stage string, empty bool) error {
		r := &row{stage: stage, empty: empty}
		err := scan.look(r)
		r.print()
		clean = clean && !r.failed()
		return err
	}
	for _, protocol := range []string{"h1", "h2"} {
		for _, path := range []string{"ok", "echo"} {
			client := guestClient(addr, root, protocol)
			if err := ask(client, path, libraryPlaceholder); err != nil {
				return false, err
			}
			client.CloseIdleConnections()
		}
	}
	if err := look("library, at once after 4 rows", false); err != nil {
		return false, err
	}
	if _, err := io.WriteString(in, "\n"); err != nil {
		return false, err
	}
	if line, err := out.ReadString('\n'); err != nil || line != "stopped\n" {
		return false, fmt.Errorf("the library's process said %q, %w", line, err)
	}
	if err := look("library, stopped", false); err != nil {
		return false, err
	}
	for i := range 2 {
		time.Sleep(settle)
		if err := look(fmt.Sprintf("library, stopped, %d s after", 5*(i+1)), i == 1); err != nil {
			return false, err
		}
	}
	return clean, u.check(4 * requests)
}

// guestClient is a guest of the library's proxy, with one connection.
func guestClient(addr string, root *x509.Certificate, protocol string) *http.Client {
	pool := x509.NewCertPool()
	pool.AddCert(root)
	var protocols http.Protocols
	protocols.SetHTTP1(protocol == "h1")
	protocols.SetHTTP2(protocol == "h2")
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", addr)
		},
		TLSClientConfig: &tls.Config{RootCAs: pool}, Protocols: &protocols,
		MaxConnsPerHost: 1, DisableCompression: true,
	}}
}
