package rootfs

import (
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
	"rouse/internal/guard"
	"rouse/rootfs/rtnl"
)

// Announce tells all neighbours which MAC this machine's addresses have now: one gratuitous ARP for each IPv4 address
// and one unsolicited neighbour advertisement for each IPv6 address, on every Ethernet link that is up. Call it
// when the gate is open. A link that is up without a carrier is an error, as the kernel would drop the frames unsaid. They are raw frames: they need AF_PACKET (CONFIG_PACKET, module af_packet), and
// go out whatever netfilter thinks of them. All are tried; the errors are joined.
func Announce() error {
	c, err := rtnl.Dial(0)
	if err != nil {
		return fmt.Errorf("announce: %w", err)
	}
	defer c.Close()
	links, err := settledLinks(c)
	if err != nil {
		return fmt.Errorf("announce: %w", err)
	}
	addresses, err := c.Addresses(0)
	if err != nil {
		return fmt.Errorf("announce: %w", err)
	}
	// Protocol 0: the socket receives nothing, so no packet is ever queued on it.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		err = fmt.Errorf("%w: kernel option CONFIG_PACKET, module af_packet", err)
	}
	if err != nil {
		return fmt.Errorf("announce: packet socket: %w", err)
	}
	// In the background: the kernel waits for a grace period of RCU (packet_release, net/packet/af_packet.c, v6.12), longer than all
	// the rest takes.
	defer func() { go guard.Do(func() { unix.Close(fd) }) }()
	var errs []error
	for n := range links {
		if l := &links[n]; l.Up && l.Ethernet && len(l.MAC) == 6 {
			errs = append(errs, announceLink(fd, l, addresses))
		}
	}
	return errors.Join(errs...)
}

// settleTimeout is far more than the kernel's link watch needs to notice a carrier (net/core/link_watch.c: at once if it
// comes, after a second at most if there were many changes).
const settleTimeout = 2 * time.Second

// AwaitLinks waits until every link that has a carrier carries packets: until the kernel's link watch has seen a carrier that came
// just now, the queue drops whatever is sent. A snapshot taken meanwhile makes each of its clones wait for it. One that does not come
// within settleTimeout is no error: Announce says what it is worth.
func AwaitLinks() error {
	c, err := rtnl.Dial(0)
	if err != nil {
		return fmt.Errorf("links: %w", err)
	}
	defer c.Close()
	if _, err = settledLinks(c); err != nil {
		return fmt.Errorf("links: %w", err)
	}
	return nil
}

// settledLinks are all links, settled as far as they will be.
func settledLinks(c *rtnl.Conn) ([]rtnl.Link, error) {
	links, err := c.Links()
	if err != nil || !unsettled(links) {
		return links, err
	}
	events, err := rtnl.Dial(rtnl.LinkEvents)
	if err != nil {
		return nil, err
	}
	defer events.Close()
	for deadline := time.Now().Add(settleTimeout); ; {
		links, err := c.Links()
		left := time.Until(deadline)
		if err != nil || left <= 0 || !unsettled(links) {
			return links, err
		}
		if err := events.WaitEvent(left); err != nil {
			return nil, err
		}
	}
}

func unsettled(links []rtnl.Link) bool {
	for n := range links {
		if l := &links[n]; l.Up && l.Ethernet && l.Carrier && !l.Running {
			return true
		}
	}
	return false
}

func announceLink(fd int, l *rtnl.Link, addresses []rtnl.Address) error {
	if !l.Running {
		return fmt.Errorf("announce: %s: it has no carrier, so nobody would hear", l.Name)
	}
	var errs []error
	for _, a := range addresses {
		// A tentative address is not ours yet (RFC 4862, section 5.4): the kernel will speak up for it itself.
		if a.Index != l.Index || a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0 {
			continue
		}
		if err := announceAddress(fd, l, a.Prefix.Addr()); err != nil {
			errs = append(errs, fmt.Errorf("announce: %s: %s: %w", l.Name, a.Prefix.Addr(), err))
		}
	}
	return errors.Join(errs...)
}

func announceAddress(fd int, l *rtnl.Link, ip netip.Addr) error {
	var frame []byte
	if ip.Is4() {
		frame = gratuitousARP(hardware(l.MAC), ip)
	} else {
		frame = unsolicitedNA(hardware(l.MAC), ip)
	}
	to := &unix.SockaddrLinklayer{Ifindex: l.Index, Halen: 6}
	copy(to.Addr[:], frame[:6])
	return unix.Sendto(fd, frame, 0, to)
}
