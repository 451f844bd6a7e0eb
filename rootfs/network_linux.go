package rootfs

import (
	"bytes"
	"errors"
	"net/netip"
	"slices"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
	"rouse/rootfs/rtnl"
)

// LinkTimeout is how long ConfigureNetwork waits for a NIC that is not there yet. Drivers for virtio probe within
// finit_module; only hot-plugged and deferred ones come later.
const LinkTimeout = 5 * time.Second

// ConfigureNetwork brings loopback up, then sets up each interface: waits for the NIC, renames it, sets MAC and MTU,
// brings it up, adds addresses and routes. What is set already stays, and nothing is removed: see
// ReplaceNetwork. All interfaces are tried; the errors are joined and name the interface.
func ConfigureNetwork(interfaces []Interface) error {
	return configureNetwork(interfaces, false)
}

// ReplaceNetwork is ConfigureNetwork for a clone that is given a new identity: on the interfaces named, addresses and
// routes through gateways that are not listed are removed. IPv6 link-local addresses are kept, unless the MAC
// changes: then they make way for the one that the new MAC gives (EUI-64), as the kernel would keep the
// twin's. All that belongs to other interfaces stays, and the links are up throughout.
func ReplaceNetwork(interfaces []Interface) error {
	return configureNetwork(interfaces, true)
}

func configureNetwork(interfaces []Interface, replace bool) error {
	c, err := rtnl.Dial(0)
	if err != nil {
		return fmt.Errorf("network: %w", err)
	}
	defer c.Close()
	errs := []error{loopbackUp(c)}
	for n := range interfaces {
		if err := configure(c, &interfaces[n], replace); err != nil {
			errs = append(errs, fmt.Errorf("interface %s: %w", &interfaces[n], err))
		}
	}
	return errors.Join(errs...)
}

// loopbackUp also gives lo its addresses 127.0.0.1 and ::1: the kernel adds them as the link comes up.
func loopbackUp(c *rtnl.Conn) error {
	links, err := c.Links()
	if err != nil {
		return fmt.Errorf("network: %w", err)
	}
	for n := range links {
		l := &links[n]
		if !l.Loopback {
			continue
		}
		if err := c.SetLink(l.Index, rtnl.LinkChange{Up: true}); err != nil {
			return fmt.Errorf("network: %s: %w", l.Name, err)
		}
	}
	return nil
}

func configure(c *rtnl.Conn, i *Interface, replace bool) error {
	if err := i.Validate(); err != nil {
		return err
	}
	l, err := waitLink(c, i, LinkTimeout)
	if err == nil {
		err = setLink(c, l, i)
	}
	addresses := i.Addresses
	if err == nil && replace {
		var own []netip.Prefix
		own, err = removeOthers(c, l, i)
		addresses = append(own, addresses...)
	}
	if err != nil {
		return err
	}
	return addAll(c, l.Index, i, addresses)
}

// addAll adds addresses, and the routes of i.
func addAll(c *rtnl.Conn, index int, i *Interface, addresses []netip.Prefix) error {
	errs := addAddresses(c, index, addresses)
	routes := i.routes()
	for n := range routes {
		errs = append(errs, addRoute(c, index, &routes[n], i.covers(routes[n].Gateway)))
	}
	return errors.Join(errs...)
}

// waitLink subscribes before it looks, so that a NIC which appears between the two is not missed.
func waitLink(c *rtnl.Conn, i *Interface, timeout time.Duration) (*rtnl.Link, error) {
	events, err := rtnl.Dial(rtnl.LinkEvents)
	if err != nil {
		return nil, fmt.Errorf("link events: %w", err)
	}
	defer events.Close()
	for deadline := time.Now().Add(timeout); ; {
		links, err := c.Links()
		if err != nil {
			return nil, err
		}
		sort.Slice(links, func(a, b int) bool { return links[a].Index < links[b].Index })
		if n := i.pick(links); n >= 0 {
			return &links[n], nil
		}
		left := time.Until(deadline)
		if left <= 0 {
			return nil, fmt.Errorf("no such NIC within %v (there are: %s); is its driver's module loaded?", timeout, describe(links))
		}
		if err := events.WaitEvent(left); err != nil {
			return nil, fmt.Errorf("link events: %w", err)
		}
	}
}

func describe(links []rtnl.Link) string {
	all := make([]string, len(links))
	for n := range links {
		all[n] = links[n].Name + " " + macText(links[n].MAC)
	}
	return strings.Join(all, ", ")
}

// setLink leaves the link up. It is taken down only to be renamed, and only if the kernel insists (before Linux 6.2).
func setLink(c *rtnl.Conn, l *rtnl.Link, i *Interface) error {
	if i.MAC != "" && i.Name != "" && i.Name != "first" && l.Name != i.Name {
		if err := rename(c, l.Index, i.Name); err != nil {
			return err
		}
	}
	if mac, _ := parseMAC(i.SetMAC); mac != nil && !bytes.Equal(mac, l.MAC) {
		if err := c.SetLink(l.Index, rtnl.LinkChange{MAC: mac}); err != nil {
			return fmt.Errorf("set mac %s: %w", i.SetMAC, err)
		}
	}
	if i.MTU != 0 && i.MTU != l.MTU {
		if err := c.SetLink(l.Index, rtnl.LinkChange{MTU: i.MTU}); err != nil {
			return fmt.Errorf("set mtu %d: %w", i.MTU, err)
		}
	}
	if err := c.SetLink(l.Index, rtnl.LinkChange{Up: true}); err != nil {
		return fmt.Errorf("bring up: %w", err)
	}
	return nil
}

func rename(c *rtnl.Conn, index int, name string) error {
	err := c.SetLink(index, rtnl.LinkChange{Name: name})
	if errors.Is(err, unix.EBUSY) {
		if err = c.SetLink(index, rtnl.LinkChange{Down: true}); err == nil {
			err = c.SetLink(index, rtnl.LinkChange{Name: name})
		}
	}
	if err != nil {
		return fmt.Errorf("rename to %s: %w", name, err)
	}
	return nil
}

func addAddresses(c *rtnl.Conn, index int, addresses []netip.Prefix) []error {
	var errs []error
	for _, p := range addresses {
		flags := uint32(unix.IFA_F_PERMANENT)
		if p.Addr().Is6() {
			flags |= unix.IFA_F_NODAD
		}
		if err := c.AddAddress(index, p, flags); err != nil {
			errs = append(errs, fmt.Errorf("add address %s: %w", p, err))
		}
	}
	return errs
}

func addRoute(c *rtnl.Conn, index int, r *Route, covered bool) error {
	k := rtnl.Route{Index: index, Destination: r.Destination, Gateway: r.Gateway, Metric: r.Metric, OnLink: r.Gateway.IsValid() && !covered}
	if err := c.ReplaceRoute(k); err != nil {
		return fmt.Errorf("add route %s via %s: %w", r.Destination, r.Gateway, err)
	}
	return nil
}

// removeOthers removes addresses that i does not list, and with them the kernel removes their prefix routes; then routes
// through a gateway that i does not list. What it returns is to be added in place of what it removed.
func removeOthers(c *rtnl.Conn, l *rtnl.Link, i *Interface) (own []netip.Prefix, err error) {
	list, err := c.Addresses(l.Index)
	if err != nil {
		return nil, err
	}
	mac, _ := parseMAC(i.SetMAC)
	moved := mac != nil && !bytes.Equal(mac, l.MAC) // l is from before it was set
	for n := range list {
		a := &list[n]
		linkLocal := a.Prefix.Addr().IsLinkLocalUnicast() && a.Prefix.Addr().Is6()
		if linkLocal && !moved || slices.Contains(i.Addresses, a.Prefix) {
			continue
		}
		if linkLocal {
			own = []netip.Prefix{linkLocalOf(hardware(mac))}
		}
		// An IPv4 address may have gone along with the primary one of its prefix.
		if err := c.RemoveAddress(l.Index, a.Prefix); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return nil, fmt.Errorf("remove address %s: %w", a.Prefix, err)
		}
	}
	return own, removeRoutes(c, l.Index, i.routes())
}

func removeRoutes(c *rtnl.Conn, index int, keep []Route) error {
	list, err := c.Routes(index)
	if err != nil {
		return err
	}
	for n := range list {
		r, stays := &list[n], !list[n].Gateway.IsValid()
		for k := range keep {
			stays = stays || keep[k].Gateway == r.Gateway
		}
		if stays {
			continue
		}
		if err := c.RemoveRoute(*r); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("remove route via %s: %w", r.Gateway, err)
		}
	}
	return nil
}
