//go:build root

package firewall

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestSetReadsBack(t *testing.T) {
	eachMechanism(t, func(t *testing.T, name string) {
		_, _, g := pair(t, Options{Mechanism: name})
		if g.Mechanism() != name {
			t.Errorf("mechanism %q", g.Mechanism())
		}
		wantState(t, g, Open)
		for _, s := range []State{Shut, Shut, Hold, Hold, Shut, Open, Open, Hold, Open, Shut} {
			set(t, g, s)
		}
	})
}

// nft itself is the oracle: what it lists is the plan's text.
func TestNftListsThePlan(t *testing.T) {
	need(t, "nft")
	for _, c := range planCases {
		t.Run(c.name, func(t *testing.T) {
			h := newHosts(t, 1)[0]
			var n *nft
			h.must(t, func() (err error) {
				n, err = newNft(c.caps, c.allow)
				return err
			})
			defer n.Close()
			n.tracked = tracking(t, c.track)
			if err := n.set(c.state); err != nil {
				t.Fatal(err)
			}
			if s, err := n.state(); s != c.state || err != nil {
				t.Errorf("state %v, %v", s, err)
			}
			want, err := os.ReadFile(filepath.Join("testdata", c.name+".nft"))
			if err != nil {
				t.Fatal(err)
			}
			if got := squeeze(h.sh(t, "nft list ruleset")); got != squeeze(string(want)) {
				t.Errorf("nft lists:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

// tracking stands for a namespace in which conntrack follows a flow, or none.
func tracking(t *testing.T, on bool) *conntrackCount {
	path := filepath.Join(t.TempDir(), "count")
	if err := os.WriteFile(path, []byte(map[bool]string{true: "1\n", false: "0\n"}[on]), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return &conntrackCount{f}
}

func squeeze(s string) string { return strings.ReplaceAll(s, "\n\n", "\n") }

// What nft compiles from the plan's text is what we compile: a gate that nft
// loaded from a golden is read back as ours.
func TestStateKnowsWhatNftLoads(t *testing.T) {
	need(t, "nft")
	for _, name := range []string{"shut", "hold"} {
		h := newHosts(t, 1)[0]
		var n *nft
		h.must(t, func() (err error) {
			n, err = newNft(allCapabilities, nil)
			return err
		})
		h.sh(t, "nft -f testdata/"+name+".nft")
		if s, err := n.state(); s.String() != name || err != nil {
			t.Errorf("%s: state %v, %v", name, s, err)
		}
		n.Close()
	}
}

func TestEstablishedConnectionSurvivesShut(t *testing.T) {
	eachMechanism(t, func(t *testing.T, name string) {
		for _, address := range []string{"10.1.0.1:0", "[fd00:1::1]:0"} {
			t.Run(address, func(t *testing.T) { surviveShut(t, name, address) })
		}
	})
}

func surviveShut(t *testing.T, mechanism, address string) {
	together(t, mechanism)
	a, b, g := pair(t, Options{Mechanism: mechanism})
	client, server := connected(t, b, a.listen(t, address))
	set(t, g, Hold)
	exchange(t, client, server, "while held")
	set(t, g, Shut)
	before := tcpInfo(t, client).Total_retrans
	write(t, client, "from client")
	write(t, server, "from server")
	await(t, "retransmissions into a shut gate", func() bool {
		return tcpInfo(t, client).Total_retrans >= before+2
	})
	// Whatever the gate tells a sender, it must back off: TCP gives up soon on a
	// connection whose local congestion it probes twice a second.
	await(t, "the guest's own TCP to back off", func() bool { return tcpInfo(t, server).Backoff >= 2 })
	if d := shutFor(); d > 0 {
		time.Sleep(d)
		for _, c := range []*net.TCPConn{client, server} { // retransmissions have backed off as long again
			c.SetDeadline(time.Now().Add(2*d + patience))
		}
	}
	set(t, g, Open)
	read(t, server, "from client")
	read(t, client, "from server")
	exchange(t, client, server, "after")
}

// together runs tests that mostly wait side by side. Cgroups are the process's,
// so those that need one run alone.
func together(t *testing.T, mechanism string) {
	if !strings.Contains(mechanism, "cgroup") {
		t.Parallel()
	}
}

// shutFor makes the gate stay shut for longer: GATE_SHUT_FOR=30s.
func shutFor() time.Duration {
	d, _ := time.ParseDuration(os.Getenv("GATE_SHUT_FOR"))
	return d
}

func exchange(t *testing.T, x, y net.Conn, text string) {
	t.Helper()
	write(t, x, text)
	read(t, y, text)
	write(t, y, text)
	read(t, x, text)
}

func write(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, c net.Conn, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != want {
		t.Fatalf("read %q, %v; want %q", b, err, want)
	}
}

// A SYN to a gate that holds or is shut gets no answer at all, and the
// connection comes about by retransmission once it opens.
func TestSynIsDroppedInSilence(t *testing.T) {
	eachMechanism(t, func(t *testing.T, name string) {
		for _, s := range []State{Hold, Shut} {
			for _, dir := range []string{"in", "out"} {
				t.Run(s.String()+" "+dir, func(t *testing.T) { dropSyn(t, name, s, dir) })
			}
		}
	})
}

func dropSyn(t *testing.T, mechanism string, s State, dir string) {
	together(t, mechanism)
	a, b, g := pair(t, Options{Mechanism: mechanism})
	to, from, address := a, b, "10.1.0.1:0"
	if dir == "out" {
		to, from, address = b, a, "10.1.0.2:0"
	}
	l := to.listen(t, address)
	// Neighbours know each other: who does not gets no further than an
	// unanswered ARP request.
	connected(t, from, l)
	outside := b.tap(t, "to-a")
	set(t, g, s)
	dialled := make(chan error, 1)
	go func() {
		c, err := from.dial(l.Addr().String())
		if err == nil {
			c.Close()
		}
		dialled <- err
	}()
	await(t, "a SYN that was sent again", func() bool { return synRetransmitted(t, from) })
	set(t, g, Open)
	if err := <-dialled; err != nil {
		t.Fatal(err)
	}
	for _, f := range outside.drain(t) {
		if isReset(f) {
			t.Errorf("an answer left the gate: %x", f)
		}
	}
}

// synRetransmitted reads TcpRetransSegs of the host.
func synRetransmitted(t *testing.T, h *host) bool {
	out := h.sh(t, `awk '/^Tcp:/ && n++ {print $13}' /proc/net/snmp`)
	return strings.TrimSpace(out) != "0"
}

// Loopback is free in every state, in both families.
func TestLoopbackIsFree(t *testing.T) {
	eachMechanism(t, func(t *testing.T, name string) {
		a, _, g := pair(t, Options{Mechanism: name})
		for _, s := range []State{Hold, Shut, Open} {
			set(t, g, s)
			for _, address := range []string{"127.0.0.1:0", "[::1]:0", "10.1.0.1:0"} {
				client, server := connected(t, a, a.listen(t, address))
				exchange(t, client, server, "over "+address)
			}
		}
	})
}

// Whatever a shut host tries to send, nothing reaches the wire.
func TestNothingLeavesWhileShut(t *testing.T) {
	eachMechanism(t, nothingLeaves)
}

func nothingLeaves(t *testing.T, name string) {
	a, b, g := pair(t, Options{Mechanism: name})
	_, server := connected(t, b, a.listen(t, "10.1.0.1:0"))
	await(t, "IPv6 to be ready", func() bool { return a.send("[fd00:1::2]:9", "ready") == nil })
	outside := b.tap(t, "to-a")
	set(t, g, Shut)
	a.sh(t, "ip neigh flush all")
	write(t, server, "a record that must not leave")
	outside.drain(t)
	for range 20 {
		for _, to := range []string{
			"10.1.0.2:9", "10.1.0.77:9", "10.1.0.255:9", "224.0.0.251:5353",
			"[fd00:1::2]:9", "[fd00:1::77]:9", "[ff02::fb%to-b]:5353",
		} {
			_ = a.send(to, "must not leave")
		}
	}
	await(t, "a retransmission", func() bool { return tcpInfo(t, server).Total_retrans > 0 || tcpInfo(t, server).Probes > 0 })
	for _, f := range outside.drain(t) {
		// The kernel's own sockets are in the root cgroup, which no test takes.
		if known := neighbourly(f); !known || g.Coverage().ARP && g.Coverage().ND {
			t.Errorf("left while shut: %x", f)
		}
	}
	set(t, g, Open)
	// A neighbour that did not answer is asked again after a second.
	await(t, "a frame after opening: without one the tap proves nothing", func() bool {
		_ = a.send("10.1.0.2:9", "free again")
		return len(outside.drain(t)) > 0
	})
}

func TestTampering(t *testing.T) {
	need(t, "nft")
	for _, c := range []struct {
		name, command string
		tampered      bool // in part; otherwise the gate is plainly open
	}{
		{"table deleted", "nft delete table inet rouse", true},
		{"arp table deleted", "nft delete table arp rouse", true},
		{"ruleset flushed", "nft flush ruleset", false},
		{"chain flushed", "nft flush chain inet rouse out", true},
		{"rule before ours", "nft insert rule inet rouse in accept", true},
		{"rule in place of ours", "nft flush chain inet rouse in; nft add rule inet rouse in iiftype loopback accept; nft add rule inet rouse in tcp dport 99 drop", true},
		{"dormant", "nft add table inet rouse '{ flags dormant; }'", true},
		{"chain more", "nft add chain inet rouse more", true},
		{"set more", "nft add set inet rouse more '{ type inet_service; }'", true},
		{"policy", "nft add chain inet rouse in '{ policy drop; }'", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, _, g := pair(t, Options{Mechanism: "nftables"})
			set(t, g, Shut)
			a.sh(t, c.command)
			s, err := g.State()
			if s != Open || errors.Is(err, ErrTampered) != c.tampered {
				t.Errorf("state %v, %v; want open and tampered=%t", s, err, c.tampered)
			}
			set(t, g, Shut)
			a.sh(t, c.command)
			set(t, g, Open)
			if out := a.sh(t, "nft list ruleset"); out != "" {
				t.Errorf("left behind:\n%s", out)
			}
		})
	}
}

// Everything that is not ours is the same, byte for byte, when the gate has
// been through all its states and is gone.
func TestOthersAreUntouched(t *testing.T) {
	need(t, "nft")
	eachMechanism(t, othersUntouched)
}

func othersUntouched(t *testing.T, name string) {
	a, b, g := pair(t, Options{Mechanism: name})
	const mine = `table inet filter { chain input { type filter hook input priority filter; policy accept; ct state established accept; counter packets 0 bytes 0; } }
		table arp rouse2 { chain input { type filter hook input priority 0; } }`
	const nat = `table ip nat { chain post { type nat hook postrouting priority srcnat; ip saddr 10.9.0.0/16 masquerade; } }`
	a.sh(t, "nft '"+mine+"' && { nft '"+nat+"' || echo no NAT in this kernel; } && ip route add 10.77.0.0/16 via 10.1.0.2; ip neigh replace 10.1.0.9 lladdr 02:00:00:00:00:09 dev to-b; ip rule add from 10.5.0.0/16 table 5")
	client, server := connected(t, b, a.listen(t, "10.1.0.1:0"))
	exchange(t, client, server, "known to conntrack")
	look := func() string {
		return a.sh(t, "nft list ruleset | sed 's/counter packets.*//'; ip -4 route; ip -6 route; ip rule; ip -6 rule; ip -o link; ip neigh show nud permanent; tc qdisc; cat /proc/net/nf_conntrack 2>/dev/null | awk '{print $3,$7,$8,$9,$10}'")
	}
	before := look()
	for _, s := range []State{Shut, Hold, Open, Hold, Shut} {
		set(t, g, s)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if after := look(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// A gate outlives the process that set it, and another process finds it.
func TestAnotherGateFindsTheState(t *testing.T) {
	h := newHosts(t, 1)[0]
	first := h.gate(t, Options{})
	set(t, first, Shut)
	if err := first.Detach(); err != nil {
		t.Fatal(err)
	}
	second := h.gate(t, Options{})
	wantState(t, second, Shut)
	set(t, second, Open)
}

// New installs nothing, not even for a moment: the generation of the
// namespace's rulesets stays what it was.
func TestNewIsInvisible(t *testing.T) {
	h := newHosts(t, 1)[0]
	var watch *nft
	h.must(t, func() (err error) {
		watch, err = newNft(capabilities{}, nil)
		return err
	})
	defer watch.Close()
	before, err := watch.generation()
	if err != nil {
		t.Fatal(err)
	}
	g := h.gate(t, Options{})
	wantState(t, g, Open)
	set(t, g, Open)
	if after, err := watch.generation(); after != before || err != nil {
		t.Errorf("generation %d, %v; was %d", after, err, before)
	}
}
