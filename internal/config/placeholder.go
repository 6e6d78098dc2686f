package config

import "strings"

// DefaultPlaceholder is what stands for the secret name in the guest.
func DefaultPlaceholder(name string) string { return "$MSB_" + name }

// shaped asks for a placeholder that looks like the value.
const shaped = "shaped"

// ParsePlaceholder reads a --placeholder NAME=TEXT. It returns "" for
// shaped: only who holds the value can draw one.
func ParsePlaceholder(s string) (name, text string, err error) {
	name, text, ok := strings.Cut(s, "=")
	if !ok || !validName(name) || text == "" {
		return "", "", hinted("invalid --placeholder", "write --placeholder NAME=TEXT, or NAME=shaped for one that looks like the value")
	}
	if len(text) < len(shaped)+2 && Nearest(text, []string{shaped}) == shaped && text != shaped {
		return "", "", hinted("--placeholder "+shown(name)+": the placeholder is too short", "did you mean shaped?")
	}
	if text == shaped {
		text = ""
	}
	return name, text, nil
}
