package image

import (
	"archive/tar"
	"sort"
)

// A plan is a finished tree in the order in which it is written.
type plan struct {
	nodes []*node // parents first; the first name of each inode
	links []*node // further names
	data  [][]*inode
	bytes int64 // of all content
	disk  int64 // upper bound of the disk, in bytes
	sort  bool  // some inode has several attributes in its block
}

// finish checks what only the whole tree shows and returns its plan.
func (t *tree) finish() (*plan, error) {
	if lf := t.root.children["lost+found"]; lf != nil && lf.children == nil {
		return nil, refuse("lost+found is not a directory")
	}
	p := &plan{data: make([][]*inode, t.layer+1)}
	links := map[*inode]int{}
	if err := p.visit(t.root, links); err != nil {
		return nil, err
	}
	for _, d := range p.data {
		sort.Slice(d, func(i, j int) bool { return d[i].entry < d[j].entry })
	}
	p.disk = p.estimate()
	return p, nil
}

func (p *plan) visit(n *node, links map[*inode]int) error {
	i := n.inode
	if i.first != nil {
		if links[i]++; links[i] >= linkMax {
			return refuse("%q has more than %d names", i.first.path(), linkMax)
		}
		p.links = append(p.links, n)
		return nil
	}
	i.first = n
	p.nodes = append(p.nodes, n)
	p.sort = p.sort || i.block > 1
	if i.typ == tar.TypeReg && i.size > 0 {
		p.data[i.layer] = append(p.data[i.layer], i)
		p.bytes += i.size
	}
	dirs := 2
	for _, c := range n.sorted() {
		if c.children != nil {
			if dirs++; dirs > linkMax {
				return refuse("directory %q has more than %d subdirectories", n.path(), linkMax-2)
			}
		}
		if err := p.visit(c, links); err != nil {
			return err
		}
	}
	return nil
}

// estimate bounds the size of the disk from above: content and directories in
// blocks of 4 KiB, 256 bytes for each inode, and the group tables.
func (p *plan) estimate() int64 {
	const block = 4096
	up := func(n int64) int64 { return (n + block - 1) / block }
	blocks := int64(0)
	for _, n := range p.nodes {
		i := n.inode
		if i.typ == tar.TypeReg {
			blocks += up(i.size)
			if i.size > 512<<20 {
				blocks++ // more extents than the inode has room for
			}
		}
		if len(i.target) > 59 {
			blocks++
		}
		if i.block > 0 {
			blocks++
		}
		if n.children != nil {
			// Names do not cross blocks: at worst 275 bytes of each are lost.
			size := int64(24)
			for name := range n.children {
				size += int64(8+len(name)+3) &^ 3
			}
			blocks += up(size*block/(block-275)) + 1
		}
	}
	inodes := int64(len(p.nodes)) + 16
	blocks += up(inodes*256) * 2
	groups := blocks/(32768-2048) + 2
	return (blocks + 4*groups + 64) * block
}

func (n *node) sorted() []*node {
	out := make([]*node, 0, len(n.children))
	for _, c := range n.children {
		out = append(out, c)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].name < out[j].name })
	return out
}
