// Monitor runs in QEMU's place, in its cage, as somebody would who has taken
// QEMU over. It tries to reach what is around it, and then tells the keeper
// what it likes, as the monitor and as the agent of a guest. What it reaches
// and all that it is sent goes to the console, which is the keeper's log.
package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Set by the linker.
var (
	mode   string
	home   string // of the sandbox
	server string // on the host's loopback
)

func main() {
	console := channel("console")
	for name, try := range map[string]func() error{
		"home":     func() error { _, err := os.ReadDir(home); return err },
		"image":    func() error { return open(diskOf(4, 64), os.O_RDWR) },
		"keeper":   func() error { return open(fmt.Sprintf("/proc/%d/environ", os.Getppid()), os.O_RDONLY) },
		"server":   func() error { return dial("tcp", server) },
		"abstract": func() error { return dial("unix", "@cutout-cage-uid-64000") },
	} {
		if try() == nil {
			fmt.Fprintln(console, "reached:", name)
		}
	}
	fmt.Fprintln(console, "tried all")
	monitor, control := channel("monitor"), channel("control")
	switch mode {
	case "noise":
		for _, f := range []*os.File{monitor, control} {
			go io.Copy(f, os.NewFile(0, "")) // nothing
			f.Write(bytes.Repeat([]byte("\x00\xff{]\n"), 1<<14))
		}
	case "a line without an end":
		for {
			if _, err := monitor.Write(bytes.Repeat([]byte("["), 1<<16)); err != nil {
				break
			}
		}
	case "forgeries":
		go forgeMonitor(monitor, console)
		forgeAgent(control, console)
	}
	time.Sleep(time.Minute)
}

// channel is the descriptor of one of the sockets that QEMU is given.
func channel(id string) *os.File {
	m := regexp.MustCompile(`socket,id=` + id + `,fd=(\d+)`).FindStringSubmatch(strings.Join(os.Args, " "))
	fd, _ := strconv.Atoi(m[1])
	return os.NewFile(uintptr(fd), id)
}

// diskOf is a name for the image, whose descriptor is the first of a file.
func diskOf(from, to int) string {
	for fd := from; fd < to; fd++ {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
			return fmt.Sprintf("/proc/self/fd/%d", fd)
		}
	}
	return "/nonexistent"
}

func open(path string, flags int) error {
	f, err := os.OpenFile(path, flags, 0)
	if err == nil {
		f.Close()
	}
	return err
}

func dial(network, addr string) error {
	c, err := net.Dial(network, addr)
	if err == nil {
		c.Close()
	}
	return err
}

// forgeMonitor answers whatever is asked, after an answer to something else,
// an event, and a descriptor that nobody wants.
func forgeMonitor(f, console *os.File) {
	io.WriteString(f, `{"QMP": {"version": {}, "capabilities": []}}`+"\n")
	for in := bufio.NewScanner(f); in.Scan(); {
		fmt.Fprintf(console, "monitor: %s\n", in.Bytes())
		var q struct{ ID uint64 }
		json.Unmarshal(in.Bytes(), &q)
		fmt.Fprintf(f, `{"return": {"status": "failed"}, "id": %d}`+"\n", q.ID+1)
		fmt.Fprintln(f, `{"event": "RESET", "data": {"guest": true, "reason": "\u001b]0;forged\u0007"}}`)
		line := fmt.Appendf(nil, `{"return": {"status": "completed"}, "id": %d}`+"\n", q.ID)
		unix.Sendmsg(int(f.Fd()), line, unix.UnixRights(int(console.Fd())), nil, 0)
	}
}

// Of internal/guest/wire.
const (
	kindHello, kindReply, kindExit = 1, 2, 3
	kindStart                      = 6
	kindData, kindEnd              = 32, 33
)

// forgeAgent greets, agrees to everything, and ends each command at once with
// words of its own.
func forgeAgent(f, console *os.File) {
	send := func(call uint32, kind, channel byte, payload string) {
		b := binary.BigEndian.AppendUint32(nil, call)
		b = append(b, kind, channel)
		b = binary.BigEndian.AppendUint16(b, uint16(len(payload)))
		f.Write(append(b, payload...))
	}
	send(0, kindHello, 0, `{"Version":2}`)
	in := bufio.NewReader(f)
	for {
		var head [8]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return
		}
		call, kind := binary.BigEndian.Uint32(head[:]), head[4]
		body := make([]byte, binary.BigEndian.Uint16(head[6:]))
		if _, err := io.ReadFull(in, body); err != nil {
			return
		}
		fmt.Fprintf(console, "agent: %d %s\n", kind, body)
		switch {
		case kind == kindStart:
			send(call, kindData, 1, "forged\n")
			send(call, kindEnd, 1, "")
			send(call, kindEnd, 2, "")
			send(call, kindExit, 0, `{"Code":3,"Reason":"\u001b]0;forged\u0007"}`)
		case kind < kindData:
			send(call, kindReply, 0, `{}`)
		}
	}
}
