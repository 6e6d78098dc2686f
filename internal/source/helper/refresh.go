package helper

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/cutoutdev/cutout/internal/memfile"
	"github.com/cutoutdev/cutout/internal/source"
)

// A helper whose values expire lives on, asked by the keeper, which knows when
// (package keeper). After each hand-over it executes itself anew, so that
// nothing that a source has left in its memory outlives the reading: while it
// waits it holds references and no value. It reads only what it was started
// for, whatever the keeper asks, and ends when the keeper is gone.

// arg0Refresh is the name of a helper that lives on. Its arguments are the
// descriptors of what it may read and of the keeper's socket.
const arg0Refresh = "cutout-source-refresh"

// liveOn hands values over and executes this process anew. It returns only if
// that fails.
func liveOn(requests []Request, keeper net.Conn) int {
	plan, err := memfile.New(requests)
	if err != nil {
		return 1
	}
	socket, err := keeper.(*net.UnixConn).File()
	if err != nil {
		return 1
	}
	return executeAnew(plan, socket)
}

func executeAnew(plan, keeper *os.File) int {
	args := []string{arg0Refresh}
	for _, f := range []*os.File{plan, keeper} {
		fd := f.Fd()
		unix.FcntlInt(fd, unix.F_SETFD, 0)
		args = append(args, strconv.Itoa(int(fd)))
	}
	self := "/proc/self/exe" // this very program, even if another has taken its place
	if runtime.GOOS != "linux" {
		var err error
		if self, err = os.Executable(); err != nil {
			return 1
		}
	}
	unix.Exec(self, args, os.Environ())
	return 1
}

// refresh answers the keeper's next question.
func refresh(harden func() error) int {
	var files [2]*os.File
	for i, arg := range os.Args[1:] {
		fd, err := strconv.Atoi(arg)
		if err != nil {
			return 1
		}
		unix.CloseOnExec(fd)
		files[i] = os.NewFile(uintptr(fd), "inherited")
	}
	plan, socket := files[0], files[1]
	if plan == nil || socket == nil || harden() != nil || mute() != nil {
		return 1
	}
	ignoreSignals()
	var requests []Request
	if memfile.Read(plan, &requests) != nil {
		return 1
	}
	keeper, err := net.FileConn(socket)
	if err != nil {
		return 1
	}
	var want source.Wanted
	if source.ReadMessage(keeper, &want, source.MaxHeader) != nil {
		return 0
	}
	if readAnew(keeper.(*net.UnixConn), requests, want.Name) != nil {
		return 0
	}
	return executeAnew(plan, socket)
}

// mute gives up the caller's standard error, which may be a pipe that somebody
// reads to its end, and a terminal that is the guest's by now.
func mute() error {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	return unix.Dup2(int(null.Fd()), 2)
}

// readAnew reads one value and writes it to the keeper.
func readAnew(keeper *net.UnixConn, requests []Request, name string) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		awaitHangUp(keeper)
		cancel()
	}()
	fresh := source.Fresh{Announced: source.Announced{Name: name}}
	i := slices.IndexFunc(requests, func(r Request) bool { return r.Name == name })
	if i < 0 {
		fresh.Failed = "nobody has said where it is"
		return source.WriteMessage(keeper, fresh, source.MaxHeader)
	}
	h := Held{Sources: sources(func(string) (string, bool) { return "", false }, io.Discard)}
	defer h.Close()
	result := h.read(ctx, requests[i])
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case result.Failed != "":
		fresh.Failed = fmt.Sprintf("read it from %s: %s", requests[i].Scheme, result.Failed)
		return source.WriteMessage(keeper, fresh, source.MaxHeader)
	}
	return source.WriteFresh(keeper, h.values[0])
}

// awaitHangUp returns when the keeper is gone, or breaks the protocol by
// asking before it is answered. It takes nothing from the socket.
func awaitHangUp(keeper *net.UnixConn) {
	raw, err := keeper.SyscallConn()
	if err != nil {
		return
	}
	raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK)
		return err != unix.EAGAIN && err != unix.EINTR
	})
}
