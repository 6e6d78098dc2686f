package env

import (
	"testing"

	"github.com/cutoutdev/cutout/internal/source/sourcetest"
)

func TestSource(t *testing.T) {
	sourcetest.Test(t, func(*testing.T) sourcetest.Place {
		vars := map[string]string{}
		return sourcetest.Place{
			Source: &Source{Lookup: func(name string) (string, bool) { v, ok := vars[name]; return v, ok }},
			Put:    func(_ *testing.T, value string) string { vars["KEY"] = value; return "KEY" },
			Absent: "OTHER",
		}
	})
}
