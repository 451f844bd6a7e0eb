package rootfs

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Announce tells all neighbours which MAC this machine's addresses have now: one gratuitous ARP for each IPv4 address
// and one unsolicited neighbour advertisement for each IPv6 address, on every Ethernet link that is up. Call it
// when the gate is open. They are raw frames: they need AF_PACKET (CONFIG_PACKET, module af_packet), and
// go out whatever netfilter thinks of them. All are tried; the errors are joined.
func Announce() error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("announce: netlink: %w", err)
	}
	defer h.Close()
	links, err := h.LinkList()
	if err != nil {
		return fmt.Errorf("announce: list links: %w", err)
	}
	// Protocol 0: the socket receives nothing, so no packet is ever queued on it.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		err = fmt.Errorf("%w: kernel option CONFIG_PACKET, module af_packet", err)
	}
	if err != nil {
		return fmt.Errorf("announce: packet socket: %w", err)
	}
	defer unix.Close(fd)
	var errs []error
	for _, l := range links {
		a := l.Attrs()
		if a.Flags&net.FlagUp == 0 || a.EncapType != "ether" || len(a.HardwareAddr) != 6 {
			continue
		}
		errs = append(errs, announceLink(h, fd, l))
	}
	return errors.Join(errs...)
}

func announceLink(h *netlink.Handle, fd int, l netlink.Link) error {
	addresses, err := h.AddrList(l, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("announce: %s: list addresses: %w", l.Attrs().Name, err)
	}
	mac := hardware(l.Attrs().HardwareAddr)
	var errs []error
	for _, a := range addresses {
		// A tentative address is not ours yet (RFC 4862, section 5.4): the kernel will speak up for it itself.
		if a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0 {
			continue
		}
		if err := announceAddress(fd, l.Attrs().Index, mac, a); err != nil {
			errs = append(errs, fmt.Errorf("announce: %s: %s: %w", l.Attrs().Name, a.IP, err))
		}
	}
	return errors.Join(errs...)
}

func announceAddress(fd, index int, mac hardware, a netlink.Addr) error {
	ip := prefixOf(a.IPNet).Addr()
	var frame []byte
	if ip.Is4() {
		frame = gratuitousARP(mac, ip)
	} else {
		frame = unsolicitedNA(mac, ip)
	}
	to := &unix.SockaddrLinklayer{Ifindex: index, Halen: 6}
	copy(to.Addr[:], frame[:6])
	return unix.Sendto(fd, frame, 0, to)
}
