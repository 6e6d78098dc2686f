package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"syscall"

	"github.com/cutoutdev/cutout/internal/guest/wire"
	"golang.org/x/sys/unix"
)

// configureNet brings the loopback up and, unless n is nil, the interface with
// n's hardware address: static, and usable at once.
func configureNet(n *wire.Net) error {
	b := &batch{}
	if lo, err := interfaceIndex("lo"); err == nil {
		b.link(lo, 0)
	}
	if n != nil {
		name, err := findInterface(n.MAC)
		if err != nil {
			return err
		}
		index, err := interfaceIndex(name)
		if err != nil {
			return err
		}
		quietIPv6(name)
		b.link(index, n.MTU)
		for _, a := range []struct {
			addr    netip.Prefix
			gateway netip.Addr
		}{{n.Addr4, n.Gateway4}, {n.Addr6, n.Gateway6}} {
			if a.addr.IsValid() {
				b.address(index, a.addr)
			}
			if a.gateway.IsValid() {
				b.defaultRoute(index, a.gateway)
			}
		}
	}
	if err := b.send(); err != nil {
		return fmt.Errorf("configure the network: %w", err)
	}
	return nil
}

// quietIPv6 turns off all that would make the interface wait for, or believe,
// anybody else on its link, which only the host is on.
func quietIPv6(name string) {
	conf := "/proc/sys/net/ipv6/conf/" + name + "/"
	writeKernel(conf+"accept_dad", "0")
	writeKernel(conf+"accept_ra", "0")
	writeKernel(conf+"autoconf", "0")
	writeKernel(conf+"accept_redirects", "0")
	writeKernel(conf+"router_solicitations", "0")
}

func interfaceIndex(name string) (int, error) {
	index, err := readKernel("/sys/class/net/" + name + "/ifindex")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(index)
}

// findInterface finds the interface with that hardware address; the kernel
// names them eth0 and so on.
func findInterface(mac string) (string, error) {
	for n := range 8 {
		name := "eth" + strconv.Itoa(n)
		got, err := readKernel("/sys/class/net/" + name + "/address")
		if err == nil && strings.EqualFold(got, mac) {
			return name, nil
		}
	}
	return "", fmt.Errorf("configure the network: no interface with address %s", mac)
}

// A batch is a run of rtnetlink requests, sent in one go.
type batch struct {
	msg  []byte
	seqs uint32
}

// add appends a request: a fixed structure and attributes.
func (b *batch) add(kind, flags uint16, body []byte, attrs ...[]byte) {
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

// attr is one attribute, padded to four bytes.
func attr(kind uint16, value []byte) []byte {
	a := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofRtAttr+len(value)))
	a = binary.NativeEndian.AppendUint16(a, kind)
	a = append(a, value...)
	return append(a, make([]byte, -len(a)&3)...)
}

// link brings an interface up, with an MTU unless that is 0.
func (b *batch) link(index, mtu int) {
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

func (b *batch) address(index int, p netip.Prefix) {
	body := []byte{family(p.Addr()), byte(p.Bits()), unix.IFA_F_NODAD, unix.RT_SCOPE_UNIVERSE}
	body = binary.NativeEndian.AppendUint32(body, uint32(index))
	a := p.Addr().AsSlice()
	b.add(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, body, attr(unix.IFA_LOCAL, a), attr(unix.IFA_ADDRESS, a))
}

func (b *batch) defaultRoute(index int, gateway netip.Addr) {
	body := []byte{family(gateway), 0, 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_STATIC, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST, 0, 0, 0, 0}
	b.add(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, body,
		attr(unix.RTA_GATEWAY, gateway.AsSlice()),
		attr(unix.RTA_OIF, binary.NativeEndian.AppendUint32(nil, uint32(index))))
}

func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// send sends the batch and reads an answer to each request.
func (b *batch) send() error {
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
