package secret

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"time"
)

// writeRecord writes text, which holds a value and fits into a slot, to conn.
// It leaves no copy of it in memory of crypto/tls, unless the goroutine is moved
// to another processor at the wrong moment: then the collector erases it.
func writeRecord(conn net.Conn, text []byte) (err error) {
	if err := growRecords(len(text)); err != nil {
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
type zeroWriter struct{ conn *tls.Conn }

var (
	zeros [slotSize]byte
	// zeroWriters are those that nobody uses. None is waited for: who waits is
	// moved.
	zeroWriters = make(chan *zeroWriter, slots)
)

// growRecords makes the buffer that the pool gives next hold n bytes.
func growRecords(n int) (err error) {
	var z *zeroWriter
	select {
	case z = <-zeroWriters:
	default:
		if z, err = newZeroWriter(); err != nil {
			return err
		}
	}
	if _, err = z.conn.Write(zeros[:n]); err != nil {
		return err
	}
	select {
	case zeroWriters <- z:
	default:
	}
	return nil
}

func newZeroWriter() (*zeroWriter, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	const name = "nowhere.invalid" // RFC 6761 §6.4
	now := time.Unix(0, 0)         // whatever the time of day does
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotBefore: now, NotAfter: now, IsCA: true, BasicConstraintsValid: true}
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
		RootCAs: roots, ServerName: name, Time: func() time.Time { return now }, MinVersion: tls.VersionTLS13,
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
