package testnet

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/netip"
	"os"
	"time"

	"golang.org/x/crypto/ocsp"
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
	MustStaple          bool      // demands a stapled OCSP response
	SignsOCSP           bool      // may sign OCSP responses for the CA
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
	if l.MustStaple {
		t.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}, Value: []byte{0x30, 3, 2, 1, 5}}}
	}
	if l.SignsOCSP {
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning)
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

// Staple makes the OCSP response r about cert and staples it. by, if it is not
// nil, signs it instead of the CA.
func (ca *CA) Staple(cert tls.Certificate, r ocsp.Response, by *tls.Certificate) (tls.Certificate, error) {
	r.SerialNumber = cert.Leaf.SerialNumber
	responder, key := ca.Root, ca.key
	if by != nil {
		responder, key, r.Certificate = by.Leaf, by.PrivateKey.(*ecdsa.PrivateKey), by.Leaf
	}
	var err error
	cert.OCSPStaple, err = ocsp.CreateResponse(ca.Root, responder, r, key)
	return cert, err
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
