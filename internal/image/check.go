package image

import (
	"archive/tar"
	"math"
	"strings"
	"time"
)

const (
	// pathMax is PATH_MAX without its NUL: a longer name could not be
	// opened in the guest, and it bounds how deep a tree can be.
	pathMax = 4095

	// nameMax is ext4's limit for one name.
	nameMax = 255

	// linkMax is ext4's limit of links to one inode; a directory has one
	// from each subdirectory.
	linkMax = 65000

	// metadataMax bounds names, link targets and extended attributes of
	// all layers, which are held in memory. A million real names need a
	// tenth of it.
	metadataMax = 512 << 20
)

// splitName returns the components of an entry's name below the root. A
// leading slash means the image's root. Nothing is resolved: ".." is refused
// even where it would stay inside, since tools disagree on what it means.
func splitName(name string) ([]string, error) {
	if len(name) > pathMax {
		return nil, refuse("a name is longer than %d bytes", pathMax)
	}
	if strings.IndexByte(name, 0) >= 0 {
		return nil, refuse("name %q has a NUL", name)
	}
	parts := make([]string, 0, strings.Count(name, "/")+1)
	for part := range strings.SplitSeq(name, "/") {
		switch {
		case part == "" || part == ".":
			continue
		case part == "..":
			return nil, refuse(`name %q has ".."`, name)
		case len(part) > nameMax:
			return nil, refuse("name %q is longer than %d bytes", part, nameMax)
		}
		parts = append(parts, part)
	}
	return parts, nil
}

// An inode is a file without its names, as a layer's entry describes it.
type inode struct {
	typ          byte // as tar has it
	mode         uint16
	uid, gid     uint32
	major, minor uint32
	mtime        time.Time
	size         int64
	target       string // of a symbolic link
	xattrs       map[string][]byte
	block        int // attributes that do not fit into the inode

	layer, entry int // where the content is
	first        *node
}

// oldRegular is a regular file in tars from before POSIX.
const oldRegular = 0

// newInode checks h, all but its names, and returns what it describes.
func newInode(h *tar.Header, limits Limits) (*inode, error) {
	if h.Uid < 0 || h.Gid < 0 || int64(h.Uid) > math.MaxUint32 || int64(h.Gid) > math.MaxUint32 {
		return nil, refuse("owner of %q is out of range", h.Name)
	}
	i := &inode{
		typ: h.Typeflag, mode: uint16(h.Mode & 0o7777), uid: uint32(h.Uid), gid: uint32(h.Gid),
		mtime: h.ModTime,
	}
	switch h.Typeflag {
	case tar.TypeReg, oldRegular, tar.TypeCont, tar.TypeGNUSparse:
		i.typ = tar.TypeReg
		i.size = h.Size
		if h.Size < 0 || h.Size > limits.FileBytes {
			return nil, refuse("file %q claims %d bytes, more than the limit of %d", h.Name, h.Size, limits.FileBytes)
		}
	case tar.TypeSymlink:
		if h.Linkname == "" || len(h.Linkname) > pathMax || strings.IndexByte(h.Linkname, 0) >= 0 {
			return nil, refuse("symbolic link %q has an impossible target", h.Name)
		}
		i.target = h.Linkname
		i.mode = 0o777
	case tar.TypeChar, tar.TypeBlock:
		if h.Devmajor < 0 || h.Devmajor >= 1<<12 || h.Devminor < 0 || h.Devminor >= 1<<20 {
			return nil, refuse("device number of %q is out of range", h.Name)
		}
		i.major, i.minor = uint32(h.Devmajor), uint32(h.Devminor)
	case tar.TypeDir, tar.TypeFifo:
	default:
		return nil, refuse("entry %q is of the unknown type %q", h.Name, h.Typeflag)
	}
	var err error
	i.xattrs, i.block, err = xattrs(h)
	return i, err
}
