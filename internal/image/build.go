package image

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/Microsoft/hcsshim/ext4/tar2ext4"
	"golang.org/x/sys/unix"
)

// merge reads the layers, lowest first, and returns what they amount to.
// Nothing is written: a hostile image is refused here.
func merge(ctx context.Context, layers []layer, limits Limits, progress Progress) (*plan, error) {
	var total int64
	for _, l := range layers {
		total += l.size()
	}
	meterLayers(layers, StageRead, total, progress)
	t := newTree(limits)
	for _, l := range layers {
		t.begin(l.whiteouts())
		if err := l.walk(ctx, func(h *tar.Header, _ io.Reader) error { return t.add(h) }); err != nil {
			return nil, err
		}
	}
	return t.finish()
}

// meterLayers makes the layers report to progress as one whole.
func meterLayers(layers []layer, stage string, total int64, progress Progress) {
	var done, told int64
	read := func(n int64) {
		if done += n; done-told >= reportEvery || done == total {
			told = done
			progress.report(stage, done, total)
		}
	}
	for _, l := range layers {
		l.observe(read)
	}
}

// writeDisk writes p's tree as ext4 into dst, which must be empty. It reads
// the layers once more and fails if they have changed. It returns a digest of
// the content.
func writeDisk(ctx context.Context, dst *os.File, p *plan, layers []layer, progress Progress) (string, error) {
	if err := checkSpace(dst, p.disk); err != nil {
		return "", err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	meterLayers(layers, "", 0, nil)
	pr, pw := io.Pipe()
	sum := sha256.New()
	emitted := make(chan error, 1)
	go func() {
		bw := bufio.NewWriterSize(io.MultiWriter(pw, sum), 1<<20)
		err := p.emit(ctx, tar.NewWriter(bw), layers, progress)
		if err == nil {
			err = bw.Flush()
		}
		pw.CloseWithError(err)
		emitted <- err
	}()
	disk := &sparse{f: dst}
	// The maximum size is what the writer reserves group tables for.
	err := tar2ext4.ConvertTarToExt4(pr, disk, tar2ext4.MaximumDiskSize(p.disk+16<<20))
	pr.CloseWithError(errStopped)
	if e := <-emitted; e != nil && !errors.Is(e, errStopped) {
		return "", e
	}
	if err == nil {
		err = disk.finish()
	}
	if err == nil {
		err = polish(dst, p.sort)
	}
	if err != nil {
		return "", fmt.Errorf("write ext4: %w", err)
	}
	return "sha256:" + hex.EncodeToString(sum.Sum(nil)), nil
}

var errStopped = errors.New("stopped reading")

// checkSpace refuses early what would fill the file system.
func checkSpace(f *os.File, need int64) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("ask for free space: %w", err)
	}
	free := int64(st.Bavail) * int64(st.Bsize)
	if st.Blocks > 0 && need > free { // no blocks at all: memory without a limit
		return fmt.Errorf("write disk: %w: %d MiB needed, %d MiB free", ErrNoSpace, need>>20, free>>20)
	}
	return nil
}

// emit writes p as one tar: directories before what is in them, whatever has
// no content, file content in the order of the layers, and further names last.
func (p *plan) emit(ctx context.Context, tw *tar.Writer, layers []layer, progress Progress) error {
	for _, n := range p.nodes {
		if n.inode.typ == tar.TypeReg && n.inode.size > 0 {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := writeHeader(tw, n); err != nil {
			return err
		}
	}
	e := &emitter{tw: tw, total: p.bytes, progress: progress, buf: make([]byte, 256<<10)}
	for k, l := range layers {
		if e.want = p.data[k]; len(e.want) == 0 {
			continue
		}
		e.entry = -1
		if err := l.walk(ctx, e.visit); err != nil {
			return err
		}
		if len(e.want) > 0 {
			return errChanged
		}
	}
	for _, n := range p.links {
		if err := tw.WriteHeader(&tar.Header{
			Typeflag: tar.TypeLink, Name: n.path(), Linkname: n.inode.first.path(), Format: tar.FormatPAX,
		}); err != nil {
			return fmt.Errorf("write link: %w", err)
		}
	}
	progress.report(StageWrite, p.bytes, p.bytes)
	return tw.Close()
}

var errChanged = errors.New("read layer: it changed while it was being read")

// An emitter copies the wanted files of one layer.
type emitter struct {
	tw    *tar.Writer
	want  []*inode // by entry
	entry int
	buf   []byte

	done, told, total int64
	progress          Progress
}

func (e *emitter) visit(h *tar.Header, content io.Reader) error {
	e.entry++
	if len(e.want) == 0 || e.want[0].entry != e.entry {
		return nil
	}
	i := e.want[0]
	e.want = e.want[1:]
	if h.Size != i.size {
		return errChanged
	}
	if err := writeHeader(e.tw, i.first); err != nil {
		return err
	}
	n, err := io.CopyBuffer(e, onlyReader{content}, e.buf)
	if err == nil && n != i.size {
		err = errChanged
	}
	return err
}

func (e *emitter) Write(p []byte) (int, error) {
	n, err := e.tw.Write(p)
	if errors.Is(err, tar.ErrWriteTooLong) {
		err = errChanged
	}
	if e.done += int64(n); e.done-e.told >= reportEvery {
		e.told = e.done
		e.progress.report(StageWrite, e.done, e.total)
	}
	return n, err
}

func writeHeader(tw *tar.Writer, n *node) error {
	i := n.inode
	h := &tar.Header{
		Typeflag: i.typ, Name: n.path(), Linkname: i.target, Size: i.size, Mode: int64(i.mode),
		Uid: int(i.uid), Gid: int(i.gid), Devmajor: int64(i.major), Devminor: int64(i.minor),
		ModTime: i.mtime, AccessTime: i.mtime, ChangeTime: i.mtime, Format: tar.FormatPAX,
	}
	if i.typ == tar.TypeDir {
		h.Name += "/"
	}
	if h.ModTime.IsZero() {
		h.ModTime, h.AccessTime, h.ChangeTime = time.Unix(0, 0), time.Unix(0, 0), time.Unix(0, 0)
	}
	if len(i.xattrs) > 0 {
		h.PAXRecords = make(map[string]string, len(i.xattrs))
		for k, v := range i.xattrs {
			h.PAXRecords[paxXattr+k] = string(v)
		}
	}
	if err := tw.WriteHeader(h); err != nil {
		return refuse("%q cannot be written: %w", n.path(), err)
	}
	return nil
}
