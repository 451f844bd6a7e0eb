//go:build root

package firewall

import (
	"errors"
	"testing"
)

func TestFibShutsAndLeavesNoTrace(t *testing.T) {
	a, b, g := pair(t, Options{Mechanism: "fib"})
	rules := func() string {
		// Link-local addresses come in their own time.
		return a.sh(t, "ip -4 rule; ip -6 rule; ip -4 route show table all; ip -6 route show table all | grep -v fe80:")
	}
	a.sh(t, "ip rule add from 10.5.0.0/16 table 5")
	before := rules()
	client, server := connected(t, b, a.listen(t, "10.1.0.1:0"))
	outside := b.tap(t, "to-a")
	for range 2 {
		set(t, g, Shut)
		outside.drain(t)
		write(t, client, "from client")
		write(t, server, "from server")
		_ = a.send("10.1.0.2:9", "must not leave")
		_ = a.send("[fd00:1::2]:9", "must not leave")
		await(t, "a retransmission", func() bool { return tcpInfo(t, client).Total_retrans > 0 })
		for _, f := range outside.drain(t) {
			if !neighbourly(f) {
				t.Errorf("left while shut: %x", f)
			}
		}
		loop, loopServer := connected(t, a, a.listen(t, "127.0.0.1:0"))
		exchange(t, loop, loopServer, "over loopback")
		set(t, g, Open)
		read(t, server, "from client")
		read(t, client, "from server")
	}
	if err := g.Set(Hold); !errors.Is(err, ErrNoHold) {
		t.Errorf("hold: %v", err)
	}
	if after := rules(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

func TestFibTampering(t *testing.T) {
	a, _, g := pair(t, Options{Mechanism: "fib"})
	for _, command := range []string{
		"ip rule del pref 2", "ip -6 rule del pref 0 not iif lo blackhole",
	} {
		set(t, g, Shut)
		a.sh(t, command)
		if s, err := g.State(); s != Open || !errors.Is(err, ErrTampered) {
			t.Errorf("%s: %v, %v", command, s, err)
		}
		set(t, g, Shut)
	}
	// A rule of priority 0 that was there first stands before ours: said, not
	// passed over.
	set(t, g, Open)
	a.sh(t, "ip rule add pref 0 lookup main")
	if err := g.Set(Shut); err == nil {
		t.Error("shut behind somebody's rule")
	}
}

// neighbourly is what routing rules do not see: multicast, ARP, neighbour
// discovery.
func neighbourly(f []byte) bool {
	arp := f[12] == 0x08 && f[13] == 0x06
	nd := len(f) > 54 && f[12] == 0x86 && f[20] == 58 && f[54] >= 133 && f[54] <= 137
	return f[0]&1 != 0 || arp || nd
}
