package image

import (
	"archive/tar"
	"encoding/binary"
	"sort"
	"strings"
)

const paxXattr = "SCHILY.xattr."

// xattrs returns the extended attributes of h that Linux can have on ext4,
// in their form on disk, and how many lie outside the inode. Others (of
// macOS, say) are dropped, and so are those that would steer the overlay in
// which the image is mounted.
func xattrs(h *tar.Header) (map[string][]byte, int, error) {
	var kept map[string][]byte
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, paxXattr)
		if !ok || !keepXattr(name) {
			continue
		}
		v := []byte(value)
		if strings.HasPrefix(name, "system.posix_acl_") {
			if v, ok = diskACL(v); !ok {
				return nil, 0, refuse("access control list of %q is malformed", h.Name)
			}
		}
		if kept == nil {
			kept = map[string][]byte{}
		}
		kept[name] = v
	}
	block, ok := placeXattrs(kept)
	if !ok {
		return nil, 0, refuse("extended attributes of %q are larger than ext4 allows", h.Name)
	}
	return kept, block, nil
}

func keepXattr(name string) bool {
	prefix, rest, _ := strings.Cut(name, ".")
	if rest == "" || len(name) > nameMax || strings.ContainsAny(name, "\x00=") {
		return false
	}
	switch prefix {
	case "user", "trusted":
		return !strings.HasPrefix(rest, "overlay.")
	case "security":
		return true
	}
	return name == "system.posix_acl_access" || name == "system.posix_acl_default"
}

// placeXattrs follows the ext4 writer: by name, each goes into the inode's 96
// bytes if it fits, else into one block. It returns how many are in the block.
func placeXattrs(x map[string][]byte) (block int, ok bool) {
	inodeLeft, blockLeft := 256-152-8, 4096-36
	for _, name := range sortedKeys(x) {
		suffix := name
		for _, p := range []string{"system.posix_acl_access", "system.posix_acl_default", "user.", "trusted.", "security."} {
			if s, ok := strings.CutPrefix(name, p); ok {
				suffix = s
				break
			}
		}
		n := (len(suffix)+3)&^3 + 16 + (len(x[name])+3)&^3
		switch {
		case n <= inodeLeft:
			inodeLeft -= n
		case n <= blockLeft:
			blockLeft -= n
			block++
		default:
			return 0, false
		}
	}
	return block, true
}

func sortedKeys(x map[string][]byte) []string {
	names := make([]string, 0, len(x))
	for name := range x {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// diskACL turns a POSIX ACL from the form of the system calls (version 2,
// every entry with an id) into ext4's (version 1, ids only where they mean
// something). Written as it came, the guest could not open the file.
func diskACL(v []byte) ([]byte, bool) {
	if len(v) < 4 || len(v)%8 != 4 || binary.LittleEndian.Uint32(v) != 2 {
		return nil, false
	}
	out := binary.LittleEndian.AppendUint32(nil, 1)
	for e := v[4:]; len(e) > 0; e = e[8:] {
		switch binary.LittleEndian.Uint16(e) {
		case 0x01, 0x04, 0x10, 0x20: // owner, group, mask, others
			out = append(out, e[:4]...)
		case 0x02, 0x08: // a user, a group
			out = append(out, e[:8]...)
		default:
			return nil, false
		}
	}
	return out, true
}
