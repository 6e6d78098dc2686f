package testnet

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/netip"
	"os"
	"time"
)

// A CA issues certificates for upstreams. It is safe for concurrent use.
type CA struct {
	Root *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewCA makes a CA that is valid from an hour ago for a year.
func NewCA() (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	t := template("Cutout test CA", time.Time{}, time.Now().AddDate(1, 0, 0))
	t.IsCA = true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	t.ExtKeyUsage = nil
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign test CA: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &CA{Root: cert, key: key}, nil
}

// PEM returns the CA's certificate.
func (ca *CA) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Root.Raw})
}

// WriteFile writes the CA's certificate to path.
func (ca *CA) WriteFile(path string) error { return os.WriteFile(path, ca.PEM(), 0o644) }

// Pool returns a pool that holds the CA alone.
func (ca *CA) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(ca.Root)
	return p
}

// A Leaf describes a certificate, good or bad.
type Leaf struct {
	Names               []string
	Addrs               []netip.Addr
	NotBefore, NotAfter time.Time // zero: an hour ago, in 30 days
	SelfSigned          bool      // not signed by the CA
}

// Cert issues a good certificate for names.
func (ca *CA) Cert(names ...string) (tls.Certificate, error) { return ca.Issue(Leaf{Names: names}) }

// Expired issues a certificate for names that expired an hour ago.
func (ca *CA) Expired(names ...string) (tls.Certificate, error) {
	now := time.Now()
	return ca.Issue(Leaf{Names: names, NotBefore: now.Add(-48 * time.Hour), NotAfter: now.Add(-time.Hour)})
}

// SelfSigned issues a certificate for names that nobody vouches for.
func (ca *CA) SelfSigned(names ...string) (tls.Certificate, error) {
	return ca.Issue(Leaf{Names: names, SelfSigned: true})
}

// Issue makes the certificate that l describes.
func (ca *CA) Issue(l Leaf) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	cn := "test"
	if len(l.Names) > 0 {
		cn = l.Names[0]
	}
	t := template(cn, l.NotBefore, l.NotAfter)
	t.DNSNames = l.Names
	for _, a := range l.Addrs {
		t.IPAddresses = append(t.IPAddresses, a.AsSlice())
	}
	parent, signer := ca.Root, ca.key
	if l.SelfSigned {
		parent, signer = t, key
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, key.Public(), signer)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("sign test certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}

func template(cn string, notBefore, notAfter time.Time) *x509.Certificate {
	if notBefore.IsZero() {
		notBefore = time.Now().Add(-time.Hour)
	}
	if notAfter.IsZero() {
		notAfter = time.Now().AddDate(0, 0, 30)
	}
	serial, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	return &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: cn},
		NotBefore:             notBefore,
		NotAfter:              notAfter,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
}
