package image

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
)

// polish mends what the ext4 writer leaves undone: bits of an inode bitmap
// beyond the last inode must be set, and the entries of an attribute block
// must be in order. sort says whether there is such a block.
func polish(f *os.File, sort bool) error {
	var sb [1024]byte
	if _, err := f.ReadAt(sb[:], 1024); err != nil {
		return fmt.Errorf("read superblock: %w", err)
	}
	le := binary.LittleEndian
	inodes, perGroup := le.Uint32(sb[0:]), le.Uint32(sb[40:])
	padding := bytes.Repeat([]byte{0xff}, 4096-int(perGroup/8))
	for g := uint32(0); g*perGroup < inodes; g++ {
		var desc [32]byte
		if _, err := f.ReadAt(desc[:], 4096+int64(g)*32); err != nil {
			return fmt.Errorf("read group descriptor: %w", err)
		}
		bitmap, table := int64(le.Uint32(desc[4:]))*4096, int64(le.Uint32(desc[8:]))*4096
		if _, err := f.WriteAt(padding, bitmap+int64(perGroup/8)); err != nil {
			return fmt.Errorf("write inode bitmap: %w", err)
		}
		if sort {
			if err := sortXattrs(f, table, perGroup); err != nil {
				return err
			}
		}
	}
	return nil
}

// sortXattrs puts the entries of every attribute block of one inode table into
// the order by which the kernel looks them up: namespace, length, name. The
// writer's order is not one when a block has several of different kinds.
func sortXattrs(f *os.File, off int64, inodes uint32) error {
	table := make([]byte, int(inodes)*256)
	if _, err := f.ReadAt(table, off); err != nil {
		return fmt.Errorf("read inodes: %w", err)
	}
	for ; len(table) > 0; table = table[256:] {
		if block := binary.LittleEndian.Uint32(table[104:]); block != 0 {
			if err := sortXattrBlock(f, int64(block)*4096); err != nil {
				return err
			}
		}
	}
	return nil
}

func sortXattrBlock(f *os.File, off int64) error {
	var b [4096]byte
	if _, err := f.ReadAt(b[:], off); err != nil {
		return fmt.Errorf("read attributes: %w", err)
	}
	var entries [][]byte
	end := 32
	for binary.LittleEndian.Uint32(b[end:]) != 0 { // an access list's name is empty
		n := 16 + (int(b[end])+3)&^3
		entries = append(entries, slices.Clone(b[end:end+n]))
		end += n
	}
	slices.SortFunc(entries, func(x, y []byte) int {
		if d := int(x[1]) - int(y[1]); d != 0 {
			return d
		}
		if d := int(x[0]) - int(y[0]); d != 0 {
			return d
		}
		return bytes.Compare(x[16:16+int(x[0])], y[16:16+int(y[0])])
	})
	if _, err := f.WriteAt(slices.Concat(entries...), off+32); err != nil {
		return fmt.Errorf("write attributes: %w", err)
	}
	return nil
}
