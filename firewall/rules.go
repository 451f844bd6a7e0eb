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
func chainRules(s State, family, name string, tracking bool, allow []Allow) []rule {
	syn := rule{matches: []match{tcpSyn{}}}
	udp := rule{matches: []match{protocol{"udp"}, ctNew{}}}
	switch family + " " + s.String() + " " + name {
	case "inet shut in":
		return refuse(false, allow, rule{})
	case "inet shut out", "inet shut post":
		return refuse(true, allow, rule{})
	case "inet hold in":
		return refuse(false, allow, syn)
	case "inet hold out":
		return refuse(true, allow, syn)
	case "arp shut in":
		return append(arpRules(allow, false), rule{})
	case "arp shut out":
		return append(arpRules(allow, true), rule{})
	case "bridge shut forward":
		return append(interfaceRules(allow), rule{})
	case "inet hold udp-in":
		if tracking {
			return refuse(false, allow, udp)
		}
	case "inet hold udp-out":
		if tracking {
			return refuse(true, allow, udp)
		}
	}
	return nil
}

// refuse drops what matches, after what is free.
func refuse(out bool, allow []Allow, r rule) []rule {
	rules := []rule{{matches: []match{loopback{out}}, accept: true}}
	return append(append(rules, ipRules(allow, out)...), r)
}

// ipRules accepts the allow list's IP traffic in one direction, and the
// neighbour discovery without which its IPv6 part would not work.
func ipRules(allow []Allow, out bool) []rule {
	var rules []rule
	for _, a := range allow {
		names := []string{a.Protocol}
		if a.Port != 0 && a.Protocol == "" {
			names = []string{"tcp", "udp"}
		}
		for _, name := range names {
			rules = append(rules, a.rule(out, flowMatches(name, a.Port, !out)...))
		}
		rules = append(rules, neighbourRules(a, out)...)
	}
	return rules
}

func flowMatches(name string, number uint16, dst bool) []match {
	switch {
	case number != 0:
		return []match{port{dst, name, number}}
	case name != "":
		return []match{protocol{name}}
	}
	return nil
}

// rule accepts what meets the exception's interface and prefix and more.
func (a Allow) rule(out bool, more ...match) rule {
	r := a.interfaceRule(out)
	if a.Prefix.IsValid() {
		r.matches = append(r.matches, address{out, unmapped(a.Prefix)})
	}
	r.matches = append(r.matches, more...)
	return r
}

func (a Allow) interfaceRule(out bool) rule {
	if a.Interface == "" {
		return rule{accept: true}
	}
	return rule{matches: []match{ifName{out, a.Interface}}, accept: true}
}

// neighbourRules frees neighbour discovery with the peers of an exception. A
// solicitation goes to a multicast address, so its target says whom it is for.
func neighbourRules(a Allow, out bool) []rule {
	if a.v4() || a.Protocol == "icmp" {
		return nil
	}
	free := a.Protocol == "" || a.Protocol == "icmpv6" // but for what goes to multicast
	solicit, advertise := a.rule(out, icmp6Type{ndSolicit}), a.rule(out, icmp6Type{ndAdvertise})
	if a.v6() && out {
		solicit = a.interfaceRule(out)
		solicit.matches = append(solicit.matches, icmp6Type{ndSolicit})
		if a.Prefix.Bits() > 0 {
			solicit.matches = append(solicit.matches, ndTarget{unmapped(a.Prefix)})
		}
	}
	switch {
	case !free:
		return []rule{solicit, advertise}
	case a.v6() && out:
		return []rule{solicit}
	}
	return nil
}

// arpRules accepts the ARP that the allow list's IPv4 part needs.
func arpRules(allow []Allow, out bool) []rule {
	var rules []rule
	for _, a := range allow {
		if a.v6() || a.Protocol == "icmpv6" {
			continue
		}
		r := a.interfaceRule(out)
		if a.v4() {
			r.matches = append(r.matches, arpAddress{out, unmapped(a.Prefix)})
		}
		rules = append(rules, r)
	}
	return rules
}

// interfaceRules lets bridged frames pass between ports only where a whole
// interface is free.
func interfaceRules(allow []Allow) []rule {
	var rules []rule
	for _, a := range allow {
		if a == (Allow{Interface: a.Interface}) {
			rules = append(rules, a.interfaceRule(false), a.interfaceRule(true))
		}
	}
	return rules
}

// unmapped is the prefix with host bits cleared and IPv4 in its own family.
func unmapped(p netip.Prefix) netip.Prefix {
	addr, bits := p.Addr(), p.Bits()
	if addr.Is4In6() {
		addr, bits = addr.Unmap(), max(bits-96, 0)
	}
	return netip.PrefixFrom(addr.WithZone(""), bits).Masked()
}
