// Package ca mints the certificates with which the boundary answers a
// guest's TLS handshakes.
//
// There is one [Authority] per sandbox. Its key is made at start, lives in
// memory only and is never written anywhere, so one sandbox's certificates
// are worth nothing in another. It signs only for names that Allow admits,
// one name per certificate, and keeps a bounded number of them: a guest that
// asks for random names makes neither work nor garbage.
package ca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"sync"
	"time"

	"github.com/cutoutdev/cutout/internal/hostname"
)

const (
	// commonName is what users see in their guest's trust store.
	commonName = "Cutout sandbox CA"
	// backdate makes certificates valid for guests whose clock is behind, as
	// after a restore from a snapshot.
	backdate = 24 * time.Hour
	// lifetime bounds what a copy of the root that someone kept is worth. A
	// sandbox that lives longer gets a new authority.
	lifetime = 30 * 24 * time.Hour
	// defaultMaxLeafs keeps the cache under 2 MiB and is more names than a
	// set of bindings without wildcards has.
	defaultMaxLeafs = 1024
)

// ErrNotAllowed says that a name is not one that the authority signs for.
var ErrNotAllowed = errors.New("no certificate may be minted for this name")

// A Config describes an Authority.
type Config struct {
	// Allow says which names certificates may be minted for. It is asked each
	// time, also for cached ones. Nil refuses every name.
	Allow func(hostname.Name) bool
	// MaxLeafs caps the certificates that are kept; 0 means 1024. The one
	// used longest ago goes first.
	MaxLeafs int
	// Full is told that one had to go for another; nil: nobody is.
	Full func()
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// An Authority signs leafs for one sandbox. It is safe for concurrent use.
type Authority struct {
	cfg  Config
	root *x509.Certificate
	pem  []byte
	key  *ecdsa.PrivateKey // the root's
	leaf *ecdsa.PrivateKey // shared by all leafs: they are trusted in the same place, by the same root
	spki [20]byte          // key identifier of leaf

	mu    sync.Mutex
	leafs cache
}

// New makes an authority with fresh keys.
func New(cfg Config) (*Authority, error) {
	if cfg.MaxLeafs <= 0 {
		cfg.MaxLeafs = defaultMaxLeafs
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	a := &Authority{cfg: cfg, leafs: newCache(cfg.MaxLeafs)}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, fmt.Errorf("make authority key: %w", err)
	}
	if a.leaf, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, fmt.Errorf("make leaf key: %w", err)
	}
	if a.spki, err = keyID(a.leaf); err != nil {
		return nil, err
	}
	if err := a.sign(); err != nil {
		return nil, fmt.Errorf("sign authority: %w", err)
	}
	return a, nil
}

// sign makes the root. Key identifiers and a critical key usage are what
// OpenSSL's -x509_strict and Python 3.13 insist on, RFC 5280 §4.2.1.
func (a *Authority) sign() error {
	id, err := keyID(a.key)
	if err != nil {
		return err
	}
	serial, err := newSerial()
	if err != nil {
		return err
	}
	now := a.cfg.Now()
	t := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: commonName},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(lifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
		SubjectKeyId:          id[:],
		AuthorityKeyId:        id[:],
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, a.key.Public(), a.key)
	if err != nil {
		return err
	}
	if a.root, err = x509.ParseCertificate(der); err != nil {
		return err
	}
	a.pem = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return nil
}

// CertPEM returns the root certificate for the guest's trust store.
func (a *Authority) CertPEM() []byte { return bytes.Clone(a.pem) }

// NotAfter returns when the root, and with it every leaf, expires.
func (a *Authority) NotAfter() time.Time { return a.root.NotAfter }

// keyID is a key identifier, RFC 7093 §2 method 1.
func keyID(k *ecdsa.PrivateKey) (id [20]byte, err error) {
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		return id, err
	}
	sum := sha256.Sum256(der)
	copy(id[:], sum[:])
	return id, nil
}

// newSerial draws a positive serial of at most 16 octets, RFC 5280 §4.1.2.2.
func newSerial() (*big.Int, error) {
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
}
