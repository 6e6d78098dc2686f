package agent

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/cutoutdev/cutout/internal/guest/wire"
)

func stat(name string) (wire.Info, error) {
	fi, err := os.Stat(filepath.Join("/", name))
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return wire.Info{}, nil
	case err != nil:
		return wire.Info{}, err
	}
	return wire.Info{Exists: true, Dir: fi.IsDir()}, nil
}

// put unpacks a tar stream.
func (s *session) put(m wire.Message) error {
	var r wire.PathRequest
	if err := m.Decode(&r); err != nil {
		return err
	}
	ins, _, err := s.link.Open(m.Call, []uint8{wire.Stdin}, nil)
	if err != nil {
		return err
	}
	s.begin(m.Call, func() error {
		err := unpack(filepath.Join("/", r.Path), ins[0])
		ins[0].Close()
		s.reply(m.Call, wire.Reply{}, err)
		return nil
	}, func(err error) { s.reply(m.Call, wire.Reply{}, err) })
	return nil
}

// get packs a directory or file.
func (s *session) get(m wire.Message) error {
	var r wire.PathRequest
	if err := m.Decode(&r); err != nil {
		return err
	}
	_, outs, err := s.link.Open(m.Call, nil, []uint8{wire.Stdout})
	if err != nil {
		return err
	}
	finish := func(err error) {
		s.reply(m.Call, wire.Reply{}, err)
		outs[0].Close()
	}
	s.begin(m.Call, func() error {
		dir := filepath.Join("/", r.Path)
		if r.Upper {
			var err error
			if dir, err = s.system.upper(); err != nil {
				return err
			}
		}
		finish(pack(dir, outs[0]))
		return nil
	}, finish)
	return nil
}
