package image

import (
	"archive/tar"
	"strings"
	"time"
)

// A node is a name in the merged tree.
type node struct {
	name     string
	parent   *node
	children map[string]*node // nil unless a directory
	inode    *inode
	layer    int // the last layer that had it, as an entry or an implied parent
}

func (n *node) path() string {
	if n.parent == nil {
		return "."
	}
	var parts []string
	for ; n.parent != nil; n = n.parent {
		parts = append(parts, n.name)
	}
	for i, j := 0, len(parts)-1; i < j; i, j = i+1, j-1 {
		parts[i], parts[j] = parts[j], parts[i]
	}
	return strings.Join(parts, "/")
}

// A tree is what layers merge into: an upper layer's entry replaces a lower
// one's, a white-out (.wh.NAME) removes NAME of the lower layers, an opaque
// mark (.wh..wh..opq) everything that lower layers have in the directory.
// Neither touches its own layer, wherever in it the mark stands.
type tree struct {
	limits Limits
	root   *node

	layer     int // being added, from 0
	entry     int // of the layer, from 0
	whiteouts bool

	entries  int
	bytes    int64 // of all file content
	metadata int64
}

func newTree(limits Limits) *tree {
	root := &node{children: map[string]*node{}, layer: -1}
	root.inode = &inode{typ: tar.TypeDir, mode: 0o755, mtime: time.Unix(0, 0)}
	return &tree{limits: limits, root: root, layer: -1}
}

// begin starts the next layer.
func (t *tree) begin(whiteouts bool) {
	t.layer++
	t.entry = -1
	t.whiteouts = whiteouts
}

// add merges the layer's next entry.
func (t *tree) add(h *tar.Header) error {
	t.entry++
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	parts, err := splitName(h.Name)
	if err != nil {
		return err
	}
	if err := t.count(h); err != nil {
		return err
	}
	if len(parts) > 0 && t.whiteouts {
		for _, p := range parts[:len(parts)-1] {
			if strings.HasPrefix(p, ".wh.") {
				return refuse("name %q is below a white-out", h.Name)
			}
		}
		if mark, ok := strings.CutPrefix(parts[len(parts)-1], ".wh."); ok {
			return t.whiteout(h.Name, parts[:len(parts)-1], mark)
		}
	}
	if h.Typeflag == tar.TypeLink {
		return t.link(h, parts)
	}
	i, err := newInode(h, t.limits)
	if err != nil {
		return err
	}
	i.layer, i.entry = t.layer, t.entry
	if t.bytes += i.size; t.bytes > t.limits.TotalBytes {
		return refuse("files take more than the limit of %d bytes", t.limits.TotalBytes)
	}
	return t.put(h.Name, parts, i)
}

// count charges an entry against the limits.
func (t *tree) count(h *tar.Header) error {
	t.metadata += int64(len(h.Name) + len(h.Linkname))
	for k, v := range h.PAXRecords {
		t.metadata += int64(len(k) + len(v))
	}
	if t.metadata > metadataMax {
		return refuse("names and attributes take more than the limit of %d bytes", metadataMax)
	}
	return t.grow()
}

// grow charges one node: entries and implied parents alike, since a name of
// 4 KB can imply two thousand directories.
func (t *tree) grow() error {
	if t.entries++; t.entries > t.limits.Entries {
		return refuse("more than the limit of %d files", t.limits.Entries)
	}
	return nil
}

// put makes name refer to i.
func (t *tree) put(name string, parts []string, i *inode) error {
	if len(parts) == 0 {
		if i.typ != tar.TypeDir {
			return refuse("the root is not a directory")
		}
		t.root.inode, t.root.layer = i, t.layer
		return nil
	}
	dir, err := t.parents(name, parts[:len(parts)-1])
	if err != nil {
		return err
	}
	base := parts[len(parts)-1]
	old := dir.children[base]
	if old != nil && old.children != nil && i.typ == tar.TypeDir {
		old.inode, old.layer = i, t.layer
		return nil
	}
	// Whether a change between file and directory inside of one layer hides
	// what lower layers have there is read differently by different tools.
	if old != nil && (old.children != nil) != (i.typ == tar.TypeDir) && t.has(old) {
		return refuse("%q is both a directory and not one in the same layer", name)
	}
	n := &node{name: base, parent: dir, inode: i, layer: t.layer}
	if i.typ == tar.TypeDir {
		n.children = map[string]*node{}
	}
	dir.children[base] = n
	return nil
}

// link makes h.Name another name of what h.Linkname refers to now; what
// replaces that name later does not change the link.
func (t *tree) link(h *tar.Header, parts []string) error {
	targetParts, err := splitName(h.Linkname)
	if err != nil {
		return err
	}
	target, err := t.find(h.Name, targetParts)
	if err != nil {
		return err
	}
	switch {
	case target == nil:
		return refuse("hard link %q leads to %q, which does not exist", h.Name, h.Linkname)
	case target.children != nil:
		return refuse("hard link %q leads to the directory %q", h.Name, h.Linkname)
	case len(parts) == 0:
		return refuse("the root is not a directory")
	}
	return t.put(h.Name, parts, target.inode)
}

// parents returns the directory that parts name, making what is missing:
// 0755, owned by root, as old as the epoch. An entry of any layer may give
// such a directory its attributes.
func (t *tree) parents(name string, parts []string) (*node, error) {
	n := t.root
	for _, p := range parts {
		c := n.children[p]
		if c == nil {
			if err := t.grow(); err != nil {
				return nil, err
			}
			c = &node{name: p, parent: n, children: map[string]*node{}, layer: t.layer}
			c.inode = &inode{typ: tar.TypeDir, mode: 0o755, mtime: time.Unix(0, 0)}
			n.children[p] = c
		}
		if err := passable(name, c); err != nil {
			return nil, err
		}
		n = c
	}
	return n, nil
}

// passable says whether name may pass through c. Through a link it would be
// another file for each tool that follows it or does not.
func passable(name string, c *node) error {
	switch {
	case c.children != nil:
		return nil
	case c.inode.typ == tar.TypeSymlink:
		return refuse("%q passes through the symbolic link %q", name, c.path())
	}
	return refuse("%q passes through %q, which is not a directory", name, c.path())
}

// find returns the node that parts name, or nil.
func (t *tree) find(name string, parts []string) (*node, error) {
	n := t.root
	for k, p := range parts {
		c := n.children[p]
		if c == nil {
			return nil, nil
		}
		if k < len(parts)-1 {
			if err := passable(name, c); err != nil {
				return nil, err
			}
		}
		n = c
	}
	return n, nil
}

func (t *tree) whiteout(name string, dir []string, mark string) error {
	if mark == ".wh..opq" {
		n, err := t.find(name, dir)
		if err != nil || n == nil {
			return err
		}
		if n.children == nil {
			return passable(name, n)
		}
		for _, c := range n.children {
			t.hide(c)
		}
		return nil
	}
	if strings.HasPrefix(mark, ".wh.") {
		return nil // other books that AUFS keeps
	}
	if mark == "" || mark == "." || mark == ".." {
		return refuse("white-out %q names nothing", name)
	}
	n, err := t.find(name, append(dir[:len(dir):len(dir)], mark))
	if err != nil || n == nil {
		return err
	}
	t.hide(n)
	return nil
}

// hide removes of n what lower layers have.
func (t *tree) hide(n *node) {
	for _, c := range n.children {
		t.hide(c)
	}
	if n.layer < t.layer && len(n.children) == 0 {
		delete(n.parent.children, n.name)
	}
}

// has reports whether the current layer has n or anything below it.
func (t *tree) has(n *node) bool {
	if n.layer == t.layer {
		return true
	}
	for _, c := range n.children {
		if t.has(c) {
			return true
		}
	}
	return false
}
