//go:build !(linux && amd64)

package vm

import "errors"

func runProbe(func(stage string)) (string, error) {
	return "", errors.New("there is no probe for this architecture")
}
