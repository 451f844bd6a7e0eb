package firewall

import "net/netip"

// Priorities within a hook (include/uapi/linux/netfilter_ipv4.h): before
// defragmentation (-400) and conntrack (-200), so that a shut gate neither
// makes nor ages the conntrack entries of others; after conntrack where a rule
// asks for its state; and late, for what leaves a queue behind our first look.
const (
	beforeAll      = -500
	afterConntrack = -170
	late           = 400
)

// capabilities is what probing found about nf_tables beyond inet tables.
type capabilities struct {
	arp       bool // CONFIG_NF_TABLES_ARP
	bridge    bool // CONFIG_NF_TABLES_BRIDGE
	conntrack bool // CONFIG_NFT_CT
}

// planFor gives what nftables is to hold in a state. tracking says that
// conntrack follows this namespace's flows already.
//
// The chains are the same in every state but open, and only their rules differ:
// rules change at one instant, in all chains of all tables, while chains come
// and go one hook after another. Every chain's policy is accept and the drop is
// a rule, for the same reason: a policy would act as soon as its chain is hooked
// in, before the rule that frees loopback.
func planFor(s State, c capabilities, tracking bool, allow []Allow) plan {
	if s == Open {
		return nil
	}
	p := plan{{family: "inet", chains: inetChains(c)}}
	if c.arp {
		p = append(p, table{family: "arp", chains: []chain{
			{"in", "input", beforeAll, nil},
			{"out", "output", beforeAll, nil},
		}})
	}
	if c.bridge {
		p = append(p, table{family: "bridge", chains: []chain{
			{"forward", "forward", beforeAll, nil},
		}})
	}
	for i := range p {
		for j := range p[i].chains {
			c := &p[i].chains[j]
			c.rules = chainRules(s, p[i].family, c.name, tracking, allow)
		}
	}
	return p
}

// inetChains stand at the earliest hook of each direction. Postrouting stands
// behind output for packets that were past it: delayed in an NFQUEUE,
// forwarded, or transformed by IPsec.
func inetChains(c capabilities) []chain {
	chains := []chain{
		{"in", "prerouting", beforeAll, nil},
		{"out", "output", beforeAll, nil},
		{"post", "postrouting", late, nil},
	}
	if c.conntrack {
		chains = append(chains,
			chain{"udp-in", "prerouting", afterConntrack, nil},
			chain{"udp-out", "output", afterConntrack, nil})
	}
	return chains
}

// chainRules gives a chain's rules in a state.
//
// Hold refuses what begins a flow. TCP tells by itself: SYN without ACK. UDP is
// asked of conntrack, and only if something else made it track before: begun
// now, it would take every flow for a new one.
func chainRules(s State, family, name string, tracking bool, allow []Allow) ruleList {
	var l ruleList
	var drop rule
	out := name != "in" && name != "udp-in"
	switch {
	case family == "inet":
		udp := name == "udp-in" || name == "udp-out"
		switch {
		case s == Shut && !udp:
		case s == Hold && !udp && name != "post":
			drop.when(tcpSyn{})
		case s == Hold && udp && tracking:
			drop.when(protocol{"udp"})
			drop.when(ctNew{})
		default:
			return nil
		}
		free := rule{accept: true}
		free.when(loopback{out})
		l.add(free)
		l.ip(allow, out)
	case s != Shut:
		return nil
	case family == "arp":
		l.arp(allow, out)
	default:
		l.interfaces(allow)
	}
	l.add(drop)
	return l
}

// ruleList is rules in the making.
type ruleList []rule

func (l *ruleList) add(r rule)  { *l = append(*l, r) }
func (r *rule) when(m match)    { r.matches = append(r.matches, m) }
func (r rule) and(m match) rule { r.when(m); return r }

// ip accepts the allow list's IP traffic in one direction, and the
// neighbour discovery without which its IPv6 part would not work.
func (l *ruleList) ip(allow []Allow, out bool) {
	for _, a := range allow {
		names := []string{a.Protocol}
		if a.Port != 0 && a.Protocol == "" {
			names = []string{"tcp", "udp"}
		}
		for _, name := range names {
			r := a.rule(out)
			switch {
			case a.Port != 0:
				r.when(port{!out, name, a.Port})
			case name != "":
				r.when(protocol{name})
			}
			l.add(r)
		}
		l.neighbours(a, out)
	}
}

// rule accepts what meets the exception's interface and prefix.
func (a Allow) rule(out bool) rule {
	r := a.interfaceRule(out)
	if a.Prefix.IsValid() {
		r.when(address{out, unmapped(a.Prefix)})
	}
	return r
}

func (a Allow) interfaceRule(out bool) rule {
	r := rule{accept: true}
	if a.Interface != "" {
		r.when(ifName{out, a.Interface})
	}
	return r
}

// neighbours frees neighbour discovery with the peers of an exception. A
// solicitation goes to a multicast address, so its target says whom it is for.
func (l *ruleList) neighbours(a Allow, out bool) {
	if a.v4() || a.Protocol == "icmp" {
		return
	}
	free := a.Protocol == "" || a.Protocol == "icmpv6" // but for what goes to multicast
	multicast := a.v6() && out
	if multicast {
		r := a.interfaceRule(out)
		r.when(icmp6Type{ndSolicit})
		if a.Prefix.Bits() > 0 {
			r.when(ndTarget{unmapped(a.Prefix)})
		}
		l.add(r)
	}
	if free {
		return
	}
	if !multicast {
		l.add(a.rule(out).and(icmp6Type{ndSolicit}))
	}
	l.add(a.rule(out).and(icmp6Type{ndAdvertise}))
}

// arp accepts the ARP that the allow list's IPv4 part needs.
func (l *ruleList) arp(allow []Allow, out bool) {
	for _, a := range allow {
		if a.v6() || a.Protocol == "icmpv6" {
			continue
		}
		r := a.interfaceRule(out)
		if a.v4() {
			r.when(arpAddress{out, unmapped(a.Prefix)})
		}
		l.add(r)
	}
}

// interfaces lets bridged frames pass between ports only where a whole
// interface is free.
func (l *ruleList) interfaces(allow []Allow) {
	for _, a := range allow {
		if a == (Allow{Interface: a.Interface}) {
			l.add(a.interfaceRule(false))
			l.add(a.interfaceRule(true))
		}
	}
}

// unmapped is the prefix with host bits cleared and IPv4 in its own family.
func unmapped(p netip.Prefix) netip.Prefix {
	addr, bits := p.Addr(), p.Bits()
	if addr.Is4In6() {
		addr, bits = addr.Unmap(), max(bits-96, 0)
	}
	return netip.PrefixFrom(addr.WithZone(""), bits).Masked()
}
