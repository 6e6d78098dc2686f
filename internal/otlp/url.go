package otlp

import (
	"errors"
	"net/netip"
	"net/url"
	"strings"

	"github.com/cutoutdev/cutout/internal/hostname"
)

// ErrCredential is returned for a URL in which a credential stands.
var ErrCredential = errors.New("a credential stands in it, which every process can read")

// logsPath is where a collector takes logs, below its URL.
const logsPath = "/v1/logs"

// Parse reads the URL of a collector and returns that of its logs; whole says
// that it is that already. Its errors repeat nothing of the text.
func Parse(text string, whole bool) (string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" {
		return "", errors.New("it begins neither with http:// nor with https://")
	}
	if u.User != nil {
		return "", ErrCredential
	}
	if u.RawQuery != "" || u.Fragment != "" || u.Opaque != "" {
		return "", errors.New("there is more than a host, a port and a path")
	}
	if _, err := hostname.ParsePort(u.Port()); err != nil && (u.Port() != "" || strings.HasSuffix(u.Host, ":")) {
		return "", errors.New("its port is none")
	}
	if _, err := netip.ParseAddr(u.Hostname()); err != nil && u.Hostname() != "localhost" {
		if _, err := hostname.Parse(u.Hostname()); err != nil {
			return "", errors.New("its host is none")
		}
	}
	if !whole && !strings.HasSuffix(u.Path, logsPath) {
		u.Path = strings.TrimSuffix(u.Path, "/") + logsPath
	}
	return u.String(), nil
}

// Clear reports whether everybody on the way to the collector can read what
// goes there.
func (s Spec) Clear() bool {
	u, err := url.Parse(s.URL)
	if err != nil || u.Scheme == "https" {
		return false
	}
	a, err := netip.ParseAddr(u.Hostname())
	return u.Hostname() != "localhost" && !(err == nil && a.IsLoopback())
}
