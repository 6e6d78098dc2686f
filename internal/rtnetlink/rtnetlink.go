// Package rtnetlink sets up network interfaces of the calling thread's
// network namespace, by the few requests of rtnetlink(7) that this takes.
package rtnetlink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Batch is a run of requests, sent in one go. The zero Batch is empty and
// ready.
type Batch struct {
	// New refuses to replace an address or a route that is there.
	New bool

	msg  []byte
	seqs uint32
}

// add appends a request: a fixed structure and attributes.
func (b *Batch) add(kind, flags uint16, body []byte, attrs ...[]byte) {
	for _, a := range attrs {
		body = append(body, a...)
	}
	b.seqs++
	h := make([]byte, 0, unix.SizeofNlMsghdr)
	h = binary.NativeEndian.AppendUint32(h, uint32(unix.SizeofNlMsghdr+len(body)))
	h = binary.NativeEndian.AppendUint16(h, kind)
	h = binary.NativeEndian.AppendUint16(h, flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	h = binary.NativeEndian.AppendUint32(h, b.seqs)
	h = binary.NativeEndian.AppendUint32(h, 0)
	b.msg = append(append(b.msg, h...), body...)
}

func (b *Batch) create() uint16 {
	if b.New {
		return unix.NLM_F_CREATE | unix.NLM_F_EXCL
	}
	return unix.NLM_F_CREATE | unix.NLM_F_REPLACE
}

// attr is one attribute, padded to four bytes.
func attr(kind uint16, value []byte) []byte {
	a := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofRtAttr+len(value)))
	a = binary.NativeEndian.AppendUint16(a, kind)
	a = append(a, value...)
	return append(a, make([]byte, -len(a)&3)...)
}

// Up brings an interface up, with an MTU unless that is 0.
func (b *Batch) Up(index, mtu int) {
	body := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(body[4:], uint32(index))
	binary.NativeEndian.PutUint32(body[8:], unix.IFF_UP)
	binary.NativeEndian.PutUint32(body[12:], unix.IFF_UP)
	var attrs [][]byte
	if mtu > 0 {
		attrs = append(attrs, attr(unix.IFLA_MTU, binary.NativeEndian.AppendUint32(nil, uint32(mtu))))
	}
	b.add(unix.RTM_NEWLINK, 0, body, attrs...)
}

// HardwareAddress gives an interface, which is down, its hardware address.
func (b *Batch) HardwareAddress(index int, mac net.HardwareAddr) {
	body := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(body[4:], uint32(index))
	b.add(unix.RTM_NEWLINK, 0, body, attr(unix.IFLA_ADDRESS, mac))
}

// Address gives an interface an address that is usable at once.
func (b *Batch) Address(index int, p netip.Prefix) {
	body := []byte{family(p.Addr()), byte(p.Bits()), unix.IFA_F_NODAD, unix.RT_SCOPE_UNIVERSE}
	body = binary.NativeEndian.AppendUint32(body, uint32(index))
	a := p.Addr().AsSlice()
	b.add(unix.RTM_NEWADDR, b.create(), body, attr(unix.IFA_LOCAL, a), attr(unix.IFA_ADDRESS, a))
}

// DefaultRoute sends what has no other route to gateway.
func (b *Batch) DefaultRoute(index int, gateway netip.Addr) {
	body := []byte{family(gateway), 0, 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_STATIC, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST, 0, 0, 0, 0}
	b.add(unix.RTM_NEWROUTE, b.create(), body,
		attr(unix.RTA_GATEWAY, gateway.AsSlice()),
		attr(unix.RTA_OIF, binary.NativeEndian.AppendUint32(nil, uint32(index))))
}

func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// Send sends the batch and reads an answer to each request.
func (b *Batch) Send() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, b.msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for answered := uint32(0); answered < b.seqs; {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		msgs, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			return err
		}
		for _, m := range msgs {
			if m.Header.Type != unix.NLMSG_ERROR || len(m.Data) < 4 {
				return errors.New("unexpected answer from the kernel")
			}
			if errno := -int32(binary.NativeEndian.Uint32(m.Data)); errno != 0 {
				return fmt.Errorf("request %d: %w", m.Header.Seq, syscall.Errno(errno))
			}
			answered++
		}
	}
	return nil
}
