package coding

import (
	"strings"
	"testing"
)

func TestAccept(t *testing.T) {
	for in, want := range map[string]string{
		"":                                   "",
		"identity":                           "identity",
		"gzip,deflate ,  br;q=0.5":           "gzip,deflate ,  br;q=0.5", // as it was
		"gzip|br":                            "gzip|br",
		"gzip, deflate, br, zstd":            "gzip, deflate, br, zstd",
		"GZIP;q=0.8, dcb, zstd;q=0.1":        "GZIP;q=0.8, zstd;q=0.1",
		"dcb, dcz":                           "identity",
		"*":                                  "identity",
		"*;q=0.5":                            "identity",
		"gzip, *;q=0":                        "gzip, *;q=0",
		"gzip;q=1.0, identity; q=0.5, *;q=0": "gzip;q=1.0, identity; q=0.5, *;q=0",
		"compress, *;q=0.000":                "*;q=0.000, identity",
		"gzip;q=0, *":                        "gzip;q=0, identity",
		"gzip;Q=0.0, exi":                    "gzip;Q=0.0, identity",
		"gzip;q=x, exi":                      "gzip;q=x",
		"br,,x-gzip,|compress;q=0":           "br, x-gzip",
	} {
		if got := strings.Join(Accept(strings.Split(in, "|")), "|"); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
	if got := Accept(nil); got != nil {
		t.Errorf("none becomes %q", got)
	}
}
