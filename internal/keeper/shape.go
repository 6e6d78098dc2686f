package keeper

import (
	"fmt"

	"github.com/cutoutdev/cutout/internal/secret"
)

// shapePlaceholders draws the placeholders that are to look like their
// values. Only the keeper can: it alone holds values, and it sets the guest's
// variables.
func shapePlaceholders(store *secret.Store, secrets []*secret.Secret) error {
	for _, s := range secrets {
		if s.Placeholder != "" {
			continue
		}
		text, err := store.Shape(s.Value)
		if err != nil {
			return &Failure{
				Text: fmt.Sprintf("draw a shaped placeholder for %s: %v", s.Name, err),
				Hint: fmt.Sprintf("write the text that is to stand for the value: --placeholder %s=TEXT", s.Name),
			}
		}
		s.Placeholder = text
	}
	return nil
}
