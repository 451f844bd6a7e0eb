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
	conntrack bool // CONFIG_NFT_CT, and something in this namespace tracks already
}

// planFor gives what nftables is to hold in a state. Every chain's policy is
// accept and the drop is a rule: a base chain is hooked in before its batch is
// committed, and a policy would act at once, without the rule that frees
// loopback; the rules of all chains start together, when the batch commits.
func planFor(s State, c capabilities, allow []Allow) plan {
	switch s {
	case Hold:
		return holdPlan(c, allow)
	case Shut:
		return shutPlan(c, allow)
	}
	return nil
}

// shutPlan drops at the earliest hook of each direction. Postrouting stands
// behind output for packets that were past it: delayed in an NFQUEUE,
// forwarded, or transformed by IPsec.
func shutPlan(c capabilities, allow []Allow) plan {
	p := plan{{family: "inet", chains: []chain{
		{"shut-in", "prerouting", beforeAll, dropAll(false, ipRules(allow, false))},
		{"shut-out", "output", beforeAll, dropAll(true, ipRules(allow, true))},
		{"shut-post", "postrouting", late, dropAll(true, ipRules(allow, true))},
	}}}
	if c.arp {
		p = append(p, table{family: "arp", chains: []chain{
			{"shut-in", "input", beforeAll, append(arpRules(allow, false), rule{})},
			{"shut-out", "output", beforeAll, append(arpRules(allow, true), rule{})},
		}})
	}
	if c.bridge {
		p = append(p, table{family: "bridge", chains: []chain{
			{"shut-forward", "forward", beforeAll, append(interfaceRules(allow), rule{})},
		}})
	}
	return p
}

// dropAll puts rules between the one that frees loopback and the drop.
func dropAll(out bool, allowed []rule) []rule {
	rules := []rule{{matches: []match{loopback{out}}, accept: true}}
	return append(append(rules, allowed...), rule{})
}

// holdPlan refuses what begins a flow. TCP tells by itself: SYN without ACK.
// UDP is asked of conntrack, and only if something else made it track before:
// begun now, it would take every flow for a new one.
func holdPlan(c capabilities, allow []Allow) plan {
	syn := rule{matches: []match{tcpSyn{}}}
	chains := []chain{
		{"hold-in", "prerouting", beforeAll, refuse(false, allow, syn)},
		{"hold-out", "output", beforeAll, refuse(true, allow, syn)},
	}
	if c.conntrack {
		udp := rule{matches: []match{protocol{"udp"}, ctNew{}}}
		chains = append(chains,
			chain{"hold-udp-in", "prerouting", afterConntrack, refuse(false, allow, udp)},
			chain{"hold-udp-out", "output", afterConntrack, refuse(true, allow, udp)})
	}
	return plan{{family: "inet", chains: chains}}
}

func refuse(out bool, allow []Allow, r rule) []rule {
	rules := dropAll(out, ipRules(allow, out))
	rules[len(rules)-1] = r
	return rules
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
