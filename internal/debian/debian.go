// Package debian makes a root file system and finds a kernel from Debian or
// Ubuntu packages, with the host's apt sources and keys.
//
// It promises to work as an ordinary user, to leave the host's apt and dpkg
// state alone, and to run no code from a package: archives are read as
// streams, and what their maintainer scripts would do for the default image
// is done here. What is used is what apt verified.
//
// It refuses to guess: a package that cannot be had is an error that has
// apt's own words, and a package whose files lead out of the root is refused.
package debian

import (
	"errors"
)

var (
	// ErrNoApt is returned where apt-get or dpkg-deb is missing.
	ErrNoApt = errors.New("apt-get and dpkg-deb are needed and not installed")

	// ErrUnavailable is returned when apt knows no such package or cannot
	// fetch it.
	ErrUnavailable = errors.New("packages are not available")
)

// Progress is told how far a stage is, in bytes or, where the stage says so,
// packages; total is 0 while it is unknown. It may be nil.
type Progress = func(stage string, done, total int64)

// The stages that Progress is told.
const (
	StageLists    = "reading package lists"
	StageDownload = "downloading packages"
	StageUnpack   = "unpacking packages" // counts packages
)

func report(p Progress, stage string, done, total int64) {
	if p != nil {
		p(stage, done, total)
	}
}

// DefaultPackages are those of the default image, beside the essential ones.
func DefaultPackages() []string {
	return []string{"bash", "coreutils", "apt", "dpkg", "curl", "python3", "git", "openssl", "ca-certificates", "procps"}
}
