package ca

import (
	"container/list"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"sync"

	"github.com/cutoutdev/cutout/internal/hostname"
)

// maxCommonName is ub-common-name, RFC 5280 appendix A.1.
const maxCommonName = 64

// Leaf returns the certificate for name, minting it if need be. It fails
// with [ErrNotAllowed] for a name that Allow does not admit. The result is
// shared and must not be changed.
func (a *Authority) Leaf(name hostname.Name) (*tls.Certificate, error) {
	if name == "" || a.cfg.Allow == nil || !a.cfg.Allow(name) {
		return nil, ErrNotAllowed
	}
	if a.cfg.Now().After(a.root.NotAfter) {
		return nil, errors.New("the sandbox's certificate authority has expired")
	}
	a.mu.Lock()
	e, full := a.leafs.get(name)
	a.mu.Unlock()
	if full && a.cfg.Full != nil {
		a.cfg.Full()
	}
	// The lock is not held while minting; the entry's once makes callers that
	// want the same name wait for one signature.
	e.once.Do(func() { e.cert, e.err = a.mint(name) })
	if e.err != nil {
		a.mu.Lock()
		a.leafs.drop(e)
		a.mu.Unlock()
		return nil, fmt.Errorf("mint certificate: %w", e.err)
	}
	return e.cert, nil
}

func (a *Authority) mint(name hostname.Name) (*tls.Certificate, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber:          serial,
		NotBefore:             a.cfg.Now().Add(-backdate),
		NotAfter:              a.root.NotAfter,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		SubjectKeyId:          a.spki[:],
		DNSNames:              []string{string(name)},
	}
	if len(name) <= maxCommonName {
		t.Subject = pkix.Name{CommonName: string(name)}
	} // else the subject is empty and the alternative name critical, RFC 5280 §4.2.1.6
	if t.NotBefore.Before(a.root.NotBefore) {
		t.NotBefore = a.root.NotBefore
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.root, a.leaf.Public(), a.key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: a.leaf, Leaf: cert}, nil
}

// A cache keeps the leafs used last. Its owner locks it.
type cache struct {
	max   int
	order *list.List // of *entry, the one used last in front
	names map[hostname.Name]*list.Element
}

type entry struct {
	name hostname.Name
	once sync.Once
	cert *tls.Certificate
	err  error
}

func newCache(max int) cache {
	return cache{max: max, order: list.New(), names: map[hostname.Name]*list.Element{}}
}

// get returns the entry for name, a new one if there is none; full says that
// another had to go for it.
func (c *cache) get(name hostname.Name) (e *entry, full bool) {
	if el, ok := c.names[name]; ok {
		c.order.MoveToFront(el)
		return el.Value.(*entry), false
	}
	if full = c.order.Len() >= c.max; full {
		last := c.order.Back()
		c.order.Remove(last)
		delete(c.names, last.Value.(*entry).name)
	}
	e = &entry{name: name}
	c.names[name] = c.order.PushFront(e)
	return e, full
}

// drop forgets e, unless a newer entry has its name.
func (c *cache) drop(e *entry) {
	if el, ok := c.names[e.name]; ok && el.Value.(*entry) == e {
		c.order.Remove(el)
		delete(c.names, e.name)
	}
}
