package script

import (
	"os"
	"regexp"
	"testing"
)

// Example returns the configuration that the page shows first, as it stands.
func Example(t *testing.T, page string) []byte {
	t.Helper()
	data, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindSubmatch(data)
	if block == nil {
		t.Fatalf("%s shows no configuration", page)
	}
	return block[1]
}
