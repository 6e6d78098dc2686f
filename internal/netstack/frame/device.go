package frame

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Device is a TAP device, which takes and gives one frame for each system
// call and needs no framing. It is a [Link].
type Device struct {
	file *os.File
	raw  syscall.RawConn
	buf  []byte
}

// NewDevice returns the device whose descriptor is f, which must not block.
// It owns f.
func NewDevice(f *os.File) (*Device, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &Device{file: f, raw: raw, buf: make([]byte, Max)}, nil
}

// Next returns the next frame, valid until the next call.
func (d *Device) Next() ([]byte, error) {
	n, err := d.file.Read(d.buf)
	return d.buf[:n], err
}

// WriteFrames writes n frames. One that the device does not take, because
// its interface is down or gone, is lost, as on a cable that is not plugged
// in; Next then says so.
func (d *Device) WriteFrames(n int, parts func(i int) [][]byte) error {
	for i := range n {
		pieces := parts(i)
		err := d.raw.Write(func(fd uintptr) bool {
			_, err := unix.Writev(int(fd), pieces)
			return err != unix.EAGAIN
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Close gives the device up.
func (d *Device) Close() error { return d.file.Close() }
