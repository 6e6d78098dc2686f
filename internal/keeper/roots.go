package keeper

import (
	"encoding/pem"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// carriedRoots are the roots for images that have none: Mozilla's, without
// those that are trusted with further constraints.
func carriedRoots() []byte {
	var out []byte
	for r := range bundle.Roots() {
		if r.Constraint == nil {
			out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.Certificate})...)
		}
	}
	return out
}
