package config

import (
	"maps"
	"slices"
)

// Nearest returns the word that text is probably meant to be, or "". Two
// typing mistakes are understood, fewer in a short text.
func Nearest(text string, words []string) string {
	best, at := "", 3
	for _, w := range words {
		if d := distance(text, w); d < at && d < len(text) {
			best, at = w, d
		}
	}
	return best
}

// SurfaceWords lists the surfaces of --surface, without details.
func SurfaceWords() []string { return slices.Clone(surfaceWords) }

// ActionWords lists the actions of --on-violation.
func ActionWords() []string { return keys(actions) }

// ScrubModes lists the modes of --scrub.
func ScrubModes() []string { return slices.Clone(scrubModes) }

// Methods lists the usual methods of --scope.
func Methods() []string { return slices.Clone(methods) }

// didYouMean is the beginning of a hint. It never repeats text.
func didYouMean(text string, words []string) string {
	if near := Nearest(text, words); near != "" {
		return "did you mean " + near + "? "
	}
	return ""
}

func keys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// maxTyped bounds the work for a text that is no word at all.
const maxTyped = 64

// distance is the Levenshtein distance between a and b.
func distance(a, b string) int {
	if len(a) > maxTyped {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
