package firewall

import "strings"

// Coverage says which traffic the gate's mechanism sees. What it does not see
// passes in every state.
type Coverage struct {
	IPv4          bool `json:"ipv4"`
	IPv6          bool `json:"ipv6"`
	ARP           bool `json:"arp"`
	ND            bool `json:"nd"`             // IPv6 neighbour discovery
	Multicast     bool `json:"multicast"`      // broadcast too
	Forwarded     bool `json:"forwarded"`      // routed: containers behind a veth
	Bridged       bool `json:"bridged"`        // between the ports of a bridge
	PacketSockets bool `json:"packet_sockets"` // sent by AF_PACKET, below the IP stack
	// HoldTCP and HoldUDP say what Hold takes for a new flow; empty: nothing
	// is refused.
	HoldTCP string `json:"hold_tcp,omitempty"`
	HoldUDP string `json:"hold_udp,omitempty"`
}

// Missing names what passes in every state, for a report; nil if nothing does.
func (c Coverage) Missing() []string {
	var names []string
	for _, part := range []struct {
		name    string
		covered bool
	}{
		{"ipv4", c.IPv4}, {"ipv6", c.IPv6}, {"arp", c.ARP}, {"neighbour discovery", c.ND},
		{"multicast", c.Multicast}, {"forwarded", c.Forwarded},
		{"bridged", c.Bridged}, {"packet sockets", c.PacketSockets},
	} {
		if !part.covered {
			names = append(names, part.name)
		}
	}
	return names
}

func (c Coverage) String() string {
	if names := c.Missing(); names != nil {
		return "all but " + strings.Join(names, ", ")
	}
	return "all"
}

// union is what two mechanisms cover together while shut; hold is the first's.
func (c Coverage) union(o Coverage) Coverage {
	c.IPv4, c.IPv6 = c.IPv4 || o.IPv4, c.IPv6 || o.IPv6
	c.ARP, c.ND, c.Multicast = c.ARP || o.ARP, c.ND || o.ND, c.Multicast || o.Multicast
	c.Forwarded, c.Bridged = c.Forwarded || o.Forwarded, c.Bridged || o.Bridged
	c.PacketSockets = c.PacketSockets || o.PacketSockets
	return c
}
