package debian

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// Rootfs writes a tar of a root file system with the essential packages and
// the named ones, DefaultPackages if there are none. Downloads and apt's
// state stay below workdir for the next call. Manuals and translations are
// left out, licences stay.
func Rootfs(ctx context.Context, workdir string, packages []string, w io.Writer, progress Progress) error {
	if len(packages) == 0 {
		packages = DefaultPackages()
	}
	a, err := Open(ctx, filepath.Join(workdir, "apt"))
	if err != nil {
		return err
	}
	defer a.Close()
	if err := a.rootfs(ctx, packages, w, progress); err != nil {
		return fmt.Errorf("make root file system: %w", err)
	}
	return nil
}

func (a *Apt) rootfs(ctx context.Context, packages []string, w io.Writer, progress Progress) error {
	// The layout is merged from the start. Where that package exists it
	// stands for the one that converts a system, which is written in Perl.
	want := append([]string{"?essential", "usr-is-merged"}, packages...)
	list, err := a.Download(ctx, want, progress)
	if errors.Is(err, ErrUnavailable) {
		want = append(want[:1:1], packages...)
		list, err = a.Download(ctx, want, progress)
	}
	if err != nil {
		return err
	}
	r := newRootfs(w, packages)
	for i, p := range list {
		report(progress, StageUnpack, int64(i), int64(len(list)))
		if err := r.unpack(ctx, a, p); err != nil {
			return fmt.Errorf("unpack %s: %w", p.Name, err)
		}
	}
	if err := r.configure(); err != nil {
		return err
	}
	report(progress, StageUnpack, int64(len(list)), int64(len(list)))
	return r.tw.Close()
}

// rootfs is a root file system on its way into a tar.
type rootfs struct {
	tw       *tar.Writer
	asked    map[string]bool   // packages that were named
	have     map[string]byte   // names written, and their type
	kept     map[string][]byte // content that configuration is made from
	newest   time.Time         // of all entries: the time of what is made here
	status   bytes.Buffer      // var/lib/dpkg/status
	auto     bytes.Buffer      // var/lib/apt/extended_states
	triggers map[string][]string
	err      error // first failure of the make functions
}

func newRootfs(w io.Writer, packages []string) *rootfs {
	r := &rootfs{
		tw: tar.NewWriter(w), asked: map[string]bool{}, have: map[string]byte{},
		kept: map[string][]byte{}, triggers: map[string][]string{},
	}
	for _, p := range packages {
		r.asked[p] = true
	}
	return r
}

// merged are the directories of the root that are links into usr.
var merged = []string{"bin", "sbin", "lib", "lib32", "lib64", "libx32"}

// place returns where an entry goes: "" is the root itself.
func place(name string) (string, error) {
	name = path.Clean(strings.TrimPrefix(name, "/"))
	if name == ".." || strings.HasPrefix(name, "../") {
		return "", errors.New("a file leads out of the root")
	}
	if name == "." {
		return "", nil
	}
	for _, m := range merged {
		if name == m || strings.HasPrefix(name, m+"/") {
			return "usr/" + name, nil
		}
	}
	return name, nil
}

// excluded is what the default image does without; dpkg in the guest is told
// the same.
func excluded(name string) bool {
	if strings.HasPrefix(name, "usr/share/doc/") {
		return path.Base(name) != "copyright" && strings.Count(name, "/") > 3
	}
	for _, p := range []string{"man", "info", "locale", "lintian", "linda", "groff"} {
		if strings.HasPrefix(name, "usr/share/"+p+"/") {
			return true
		}
	}
	return false
}

const dpkgExcludes = `# Documentation and translations are left out of this image.
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/man/*
path-exclude /usr/share/info/*
path-exclude /usr/share/locale/*
path-exclude /usr/share/lintian/*
path-exclude /usr/share/linda/*
path-exclude /usr/share/groff/*
`

// replaced are directories of base-files that its maintainer script replaces
// by links.
var replaced = map[string]bool{"var/run": true, "var/lock": true}

// keep says whether configuration is made from the file's content.
func keep(name string) bool {
	for _, p := range []string{
		"usr/share/base-passwd/", "usr/share/base-files/", "usr/share/ca-certificates/", "usr/share/pam/common-",
		"usr/share/debianutils/shells", "usr/share/libc-bin/", "usr/lib/os-release",
	} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// unpack adds a package's files and dpkg's records of it.
func (r *rootfs) unpack(ctx context.Context, a *Apt, p Package) error {
	control, err := a.control(ctx, p.Path)
	if err != nil {
		return err
	}
	if control["control"] == nil {
		return errors.New("the package has no control file")
	}
	conffiles := map[string]string{}
	if c := control["conffiles"]; c != nil {
		for name := range strings.SplitSeq(string(c.body), "\n") {
			if name = strings.TrimSpace(name); strings.HasPrefix(name, "/") {
				conffiles[name] = ""
			}
		}
	}
	names := []string{"/."}
	err = a.files(ctx, p.Path, func(h *tar.Header, content io.Reader) error {
		original := "/" + strings.TrimPrefix(path.Clean(h.Name), "/")
		if original != "/." {
			names = append(names, original)
		}
		if _, ok := conffiles[original]; ok && h.Typeflag == tar.TypeReg {
			sum := md5.New() // as dpkg records it
			content = io.TeeReader(content, sum)
			defer func() { conffiles[original] = hex.EncodeToString(sum.Sum(nil)) }()
		}
		return r.add(h, content)
	})
	if err != nil {
		return err
	}
	r.record(p, control, names, conffiles)
	return r.err
}

// add writes one entry of a package.
func (r *rootfs) add(h *tar.Header, content io.Reader) error {
	name, err := place(h.Name)
	if err != nil {
		return err
	}
	if r.newest.Before(h.ModTime) {
		r.newest = h.ModTime
	}
	if name == "" || excluded(name) || replaced[name] {
		return nil
	}
	if h.Typeflag == tar.TypeDir && r.have[name] == tar.TypeDir {
		return nil // the first package to have it says what it is like
	}
	if root := strings.TrimPrefix(name, "usr/"); h.Typeflag == tar.TypeSymlink && "usr/"+root == path.Clean(h.Linkname) {
		return nil // base-files has the merged layout itself
	}
	out := &tar.Header{
		Typeflag: h.Typeflag, Name: name, Linkname: h.Linkname, Size: h.Size, Mode: h.Mode, Uid: h.Uid, Gid: h.Gid,
		ModTime: h.ModTime, Devmajor: h.Devmajor, Devminor: h.Devminor, PAXRecords: xattrsOf(h), Format: tar.FormatPAX,
	}
	if h.Typeflag == tar.TypeLink {
		if out.Linkname, err = place(h.Linkname); err != nil {
			return err
		}
	}
	r.have[name] = h.Typeflag
	if err := r.tw.WriteHeader(out); err != nil {
		return err
	}
	if keep(name) && h.Typeflag == tar.TypeReg {
		body, err := io.ReadAll(io.LimitReader(content, maxControl))
		if err != nil {
			return err
		}
		r.kept[name] = body
		content = bytes.NewReader(body)
	}
	_, err = io.Copy(r.tw, content)
	return err
}

func xattrsOf(h *tar.Header) map[string]string {
	var out map[string]string
	for k, v := range h.PAXRecords {
		if strings.HasPrefix(k, "SCHILY.xattr.") {
			if out == nil {
				out = map[string]string{}
			}
			out[k] = v
		}
	}
	return out
}

// file writes a file of root's.
func (r *rootfs) file(name string, mode int64, body string) {
	r.put(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(body))}, body)
}

// fileOf writes a file of root's with another group.
func (r *rootfs) fileOf(group int, name string, mode int64, body string) {
	r.put(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Gid: group, Size: int64(len(body))}, body)
}

func (r *rootfs) dir(name string, mode int64, group int) {
	if r.have[name] != tar.TypeDir {
		r.put(&tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode, Gid: group}, "")
	}
}

func (r *rootfs) link(name, target string) {
	r.put(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, "")
}

func (r *rootfs) put(h *tar.Header, body string) {
	if r.err != nil {
		return
	}
	h.ModTime, h.Format = r.newest, tar.FormatPAX
	r.have[h.Name] = h.Typeflag
	if r.err = r.tw.WriteHeader(h); r.err == nil {
		_, r.err = io.WriteString(r.tw, body)
	}
}
