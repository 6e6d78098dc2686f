package secret

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"sync"
	"time"
)

// writeRecord writes text, which holds a value, to conn and leaves no copy of
// it in memory of crypto/tls.
func writeRecord(conn net.Conn, text []byte) (err error) {
	z, err := zeros()
	if err != nil {
		return err
	}
	if err := z.grow(len(text)); err != nil {
		return err
	}
	erasing(func() { _, err = conn.Write(text) })
	return err
}

// A zeroWriter has crypto/tls grow its record buffers before a value is
// written. TLS 1.3 appends the plain text to such a buffer and seals it in
// place; a buffer that is too small is replaced, and left with the plain text
// in it until the collector comes. They are pooled, and the pool gives a
// processor what it was given back last: what a record of zeros, over a
// connection that leads nowhere, has just made long enough.
type zeroWriter struct {
	mu   sync.Mutex
	conn *tls.Conn
	text [slotSize]byte
}

func (z *zeroWriter) grow(n int) error {
	z.mu.Lock()
	defer z.mu.Unlock()
	_, err := z.conn.Write(z.text[:min(n, slotSize)])
	return err
}

// zeros is the process's only one.
var zeros = sync.OnceValues(newZeroWriter)

func newZeroWriter() (*zeroWriter, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	const name = "nowhere.invalid" // RFC 6761 §6.4
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, public, private)
	if err != nil {
		return nil, err
	}
	if cert, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	near, far := net.Pipe()
	defer near.Close()
	server := tls.Server(far, &tls.Config{
		Certificates:           []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private}},
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
	})
	done := make(chan error, 1)
	go func() {
		done <- server.Handshake()
		far.Close()
	}()
	way := &nowhere{Conn: near}
	z := &zeroWriter{conn: tls.Client(way, &tls.Config{
		RootCAs: roots, ServerName: name, MinVersion: tls.VersionTLS13,
		DynamicRecordSizingDisabled: true, // a slot is one record
	})}
	if err := z.conn.Handshake(); err != nil {
		return nil, err
	}
	if err := <-done; err != nil {
		return nil, err
	}
	way.open = true
	return z, nil
}

// nowhere takes whatever is written once it is open.
type nowhere struct {
	net.Conn
	open bool
}

func (n *nowhere) Write(p []byte) (int, error) {
	if n.open {
		return len(p), nil
	}
	return n.Conn.Write(p)
}
