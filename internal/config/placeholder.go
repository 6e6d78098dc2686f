package config

import "strings"

// DefaultPlaceholder is what stands for the secret name in the guest.
func DefaultPlaceholder(name string) string { return "$MSB_" + name }

// ParsePlaceholder reads a --placeholder NAME=TEXT.
func ParsePlaceholder(s string) (name, text string, err error) {
	name, text, ok := strings.Cut(s, "=")
	if !ok || !validName(name) || text == "" {
		return "", "", hinted("invalid --placeholder", "write --placeholder NAME=TEXT")
	}
	return name, text, nil
}
