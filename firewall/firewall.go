package firewall

import (
	"errors"
	"net/netip"
	"strings"

	"rouse/internal/fmt"
)

// State is how much traffic the gate lets through.
type State uint8

const (
	// Open lets everything through and leaves nothing installed: no table,
	// no rule, no hook, so that a packet costs what it costs without a gate.
	Open State = iota
	// Hold refuses new flows in silence, in both directions; established
	// ones go on, so that replies and acknowledgements still travel. What
	// counts as a new flow for UDP depends on the mechanism: see Coverage.
	Hold
	// Shut drops everything but loopback and the allow list, in silence.
	Shut
)

var stateNames = [...]string{Open: "open", Hold: "hold", Shut: "shut"}

func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// ParseState is the inverse of State.String.
func ParseState(s string) (State, error) {
	for i, name := range stateNames {
		if s == name {
			return State(i), nil
		}
	}
	return 0, fmt.Errorf("gate state %q: want open, hold or shut", s)
}

// Allow names management traffic that stays free while the gate holds or is
// shut. A zero field means any; an Allow with every field zero is refused,
// because it would be an open gate under another name.
type Allow struct {
	// Interface is the name of the guest's interface. With it alone, all
	// traffic of that interface is free, ARP and neighbour discovery too.
	Interface string
	// Prefix holds the peer's address.
	Prefix netip.Prefix
	// Protocol is tcp, udp, icmp or icmpv6.
	Protocol string
	// Port is the guest's own port: a service that the peer calls. A port
	// without a protocol means tcp and udp.
	Port uint16
}

// Options says how the gate is to be built. The zero value is the best
// mechanism of this kernel and no exceptions.
type Options struct {
	// Mechanism is one of Mechanisms; "" is the first of them that works.
	Mechanism string
	Allow     []Allow
	// Log gets a line for what is worth knowing and changes no result; nil
	// is silence.
	Log func(format string, args ...any)

	cgroup string // directory that the cgroup rung takes; "" is the root
}

// Errors that a caller may act on.
var (
	// ErrTampered says that what stands in the kernel under our name is
	// neither absent nor what this gate would have set.
	ErrTampered = errors.New("gate was changed by someone else")
	// ErrNoHold says that the mechanism in use cannot tell a new flow from an
	// established one.
	ErrNoHold = errors.New("mechanism knows no hold")
)

// UnsupportedError says which part of the kernel a mechanism lacks. It
// matches errors.Is(err, errors.ErrUnsupported).
type UnsupportedError struct {
	Feature string // "nf_tables inet tables"
	Option  string // kernel configuration option, "CONFIG_NF_TABLES_INET"
	Err     error  // what the kernel answered
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("kernel lacks %s (%s): %v", e.Feature, e.Option, e.Err)
}

func (e *UnsupportedError) Unwrap() error { return e.Err }

// Is makes the error match errors.ErrUnsupported.
func (e *UnsupportedError) Is(target error) bool { return target == errors.ErrUnsupported }

// check refuses an exception that cannot be expressed or that excepts all.
func (a Allow) check() error {
	switch {
	case a == Allow{}:
		return fmt.Errorf("allow: every field is empty: that would be an open gate")
	case len(a.Interface) >= ifNameSize:
		return fmt.Errorf("allow: interface %q: name longer than %d bytes", a.Interface, ifNameSize-1)
	case a.Protocol != "" && protocolOf(a.Protocol) == 0:
		return fmt.Errorf("allow: protocol %q: want tcp, udp, icmp or icmpv6", a.Protocol)
	case a.Port != 0 && (a.Protocol == "icmp" || a.Protocol == "icmpv6"):
		return fmt.Errorf("allow: port %d: %s has no ports", a.Port, a.Protocol)
	case strings.ContainsAny(a.Interface, "\"/ \t\n\x00"):
		return fmt.Errorf("allow: interface %q: not a name of an interface", a.Interface)
	case a.Prefix.Addr().Is4In6() && a.Prefix.Bits() < 96:
		return fmt.Errorf("allow: prefix %v: half IPv4, half IPv6", a.Prefix)
	case a.Prefix != (netip.Prefix{}) && !a.Prefix.IsValid():
		return fmt.Errorf("allow: prefix %v is not valid", a.Prefix)
	case a.Protocol == "icmp" && a.v6() || a.Protocol == "icmpv6" && a.v4():
		return fmt.Errorf("allow: protocol %s does not go with prefix %v", a.Protocol, a.Prefix)
	}
	return nil
}

// v4 and v6 say whether the exception is bound to one address family.
func (a Allow) v4() bool { return a.Prefix.IsValid() && a.Prefix.Addr().Unmap().Is4() }
func (a Allow) v6() bool { return a.Prefix.IsValid() && !a.v4() }

// ifNameSize is IFNAMSIZ, include/uapi/linux/if.h: the name and its zero byte.
const ifNameSize = 16

// protocolOf is a protocol's number in IANA's registry; 0 for those that an
// exception cannot name.
func protocolOf(name string) uint8 {
	switch name {
	case "icmp":
		return 1
	case "tcp":
		return 6
	case "udp":
		return 17
	case "icmpv6":
		return 58
	}
	return 0
}
