package keyring

import (
	"testing"

	"github.com/zalando/go-keyring"

	"github.com/cutoutdev/cutout/internal/source/sourcetest"
)

func TestSource(t *testing.T) {
	sourcetest.Keyring(t)
	sourcetest.Test(t, func(*testing.T) sourcetest.Place {
		return sourcetest.Place{
			Source: &Source{},
			Put: func(t *testing.T, value string) string {
				if err := keyring.Set("https://api.example.com/v1", "me@example.com", value); err != nil {
					t.Fatal(err)
				}
				return "https://api.example.com/v1/me@example.com"
			},
			Absent: "api.example.com/nobody",
			Broken: []string{"", "/", "service", "service/", "/user"},
		}
	})
}
