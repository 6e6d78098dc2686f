package proxy

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"slices"
	"time"

	"golang.org/x/crypto/ocsp"
)

// Errors of a certificate whose issuer has more to say about it.
var (
	errRevoked    = errors.New("certificate was revoked")
	errNotStapled = errors.New("certificate demands a stapled OCSP response and there is no good one")
)

// stapled checks what a server has stapled to its certificate, RFC 6960 and
// RFC 6066 §8: one that its issuer has revoked is no proof, however old the
// news. Nobody is asked. A response that cannot be read, or that another has
// signed, counts as none, and none is enough unless the certificate demands
// one, RFC 7633.
func stapled(cs tls.ConnectionState, chains [][]*x509.Certificate, now time.Time) error {
	if len(cs.PeerCertificates) == 0 {
		return nil
	}
	leaf, good := cs.PeerCertificates[0], false
	for _, chain := range chains {
		issuer := chain[min(1, len(chain)-1)]
		r, err := ocsp.ParseResponseForCert(cs.OCSPResponse, leaf, issuer)
		if err != nil || !mayAnswer(r.Certificate, issuer) {
			continue
		}
		if r.Status == ocsp.Revoked {
			return errRevoked
		}
		current := !now.Before(r.ThisUpdate) && (r.NextUpdate.IsZero() || now.Before(r.NextUpdate))
		good = good || r.Status == ocsp.Good && current
	}
	if !good && demandsStaple(leaf) {
		return errNotStapled
	}
	return nil
}

// mayAnswer reports whether the signer of a response, nil for the issuer
// itself, is one that the issuer has named for it: any other certificate of
// its, a revoked one too, could vouch for itself. RFC 6960 §4.2.2.2.
func mayAnswer(signer, issuer *x509.Certificate) bool {
	return signer == nil || bytes.Equal(signer.Raw, issuer.Raw) || slices.Contains(signer.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning)
}

// tlsFeature is the extension that names what a server must do, and statusRequest
// the TLS extension that staples a response.
var tlsFeature = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}

const statusRequest = 5

func demandsStaple(leaf *x509.Certificate) bool {
	for _, e := range leaf.Extensions {
		var features []int
		if e.Id.Equal(tlsFeature) {
			_, err := asn1.Unmarshal(e.Value, &features)
			return err != nil || slices.Contains(features, statusRequest)
		}
	}
	return false
}
