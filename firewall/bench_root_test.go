//go:build root

package firewall

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Rules with which others shut a network, to be loaded by their programs.
const (
	nftShut  = "table inet rouse { chain i { type filter hook input priority 0; policy drop; iif lo accept; }\n chain o { type filter hook output priority 0; policy drop; oif lo accept; }\n chain f { type filter hook forward priority 0; policy drop; }\n}\n"
	nftOpen  = "delete table inet rouse\n"
	ipShut   = "*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT DROP [0:0]\n-A INPUT -i lo -j ACCEPT\n-A OUTPUT -o lo -j ACCEPT\nCOMMIT\n"
	ipOpen   = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n"
	criuShut = "create table inet CRIU-1\nadd chain inet CRIU-1 output { type filter hook output priority 0; policy drop; }\nadd rule inet CRIU-1 output meta mark 0xc114 accept\nadd chain inet CRIU-1 input { type filter hook input priority 0; policy drop; }\nadd rule inet CRIU-1 input meta mark 0xc114 accept\n"
	criuOpen = "delete table inet CRIU-1\n"
)

// BenchmarkSwitch shuts and opens a gate in each way, in a namespace with two
// links; an operation is both, and for ours both are read back.
func BenchmarkSwitch(b *testing.B) {
	for _, name := range append(mechanisms, "fib") {
		b.Run("rouse/"+name, func(b *testing.B) {
			_, _, g := pair(b, Options{Mechanism: name})
			for b.Loop() {
				set1(b, g, Shut)
				set1(b, g, Open)
			}
		})
	}
	for _, c := range []struct{ name, program, args, shut, open string }{
		{"nft -f", "nft", "-f -", nftShut, nftOpen},
		{"criu by nft", "nft", "-f -", criuShut, criuOpen},
		{"iptables-restore", "iptables-restore", "", ipShut, ipOpen},
		{"iptables and ip6tables", "ip6tables-restore", "", ipShut, ipOpen},
	} {
		b.Run("others/"+c.name, func(b *testing.B) { benchmarkExec(b, c.program, c.args, c.shut, c.open) })
	}
}

// set1 does not read once more than Set does.
func set1(b *testing.B, g *Gate, s State) {
	if err := g.Set(s); err != nil {
		b.Fatal(err)
	}
}

func benchmarkExec(b *testing.B, program, args, shut, open string) {
	need(b, program)
	h := newHosts(b, 1)[0]
	programs := []string{program}
	if program == "ip6tables-restore" { // both families, as ours
		programs = []string{"iptables-restore", program}
	}
	h.must(b, func() error {
		for b.Loop() {
			for _, rules := range []string{shut, open} {
				for _, p := range programs {
					cmd := exec.Command(p, strings.Fields(args)...)
					cmd.Stdin = strings.NewReader(rules)
					if out, err := cmd.CombinedOutput(); err != nil {
						return fmt.Errorf("%s: %w: %s", p, err, out)
					}
				}
			}
		}
		return nil
	})
}

// BenchmarkShut is only the way to shut, with what a busy guest has.
func BenchmarkShut(b *testing.B) {
	for _, c := range []struct{ rules, connections int }{{0, 0}, {5000, 0}, {0, 2000}} {
		for _, name := range []string{"nftables", "nftables+tc"} {
			b.Run(fmt.Sprintf("%s/rules=%d/connections=%d", name, c.rules, c.connections), func(b *testing.B) {
				a, peer, g := pair(b, Options{Mechanism: name})
				othersRules(b, a, c.rules)
				l := a.listen(b, "10.1.0.1:0")
				for range c.connections {
					connected(b, peer, l)
				}
				for b.Loop() {
					set1(b, g, Shut)
					b.StopTimer()
					set1(b, g, Open)
					b.StartTimer()
				}
			})
		}
	}
}

func othersRules(b *testing.B, h *host, n int) {
	if n == 0 {
		return
	}
	need(b, "nft")
	var rules strings.Builder
	rules.WriteString("table inet other {\n chain c {\n type filter hook input priority 0; policy accept;\n")
	for i := range n {
		fmt.Fprintf(&rules, "ip saddr 192.0.%d.%d tcp dport %d counter drop\n", i/250, i%250, i+1)
	}
	rules.WriteString("}\n}\n")
	path := b.TempDir() + "/rules"
	if err := os.WriteFile(path, []byte(rules.String()), 0o644); err != nil {
		b.Fatal(err)
	}
	h.sh(b, "nft -f "+path)
}

// BenchmarkState is one reading of a shut gate.
func BenchmarkState(b *testing.B) {
	for _, name := range mechanisms {
		b.Run(name, func(b *testing.B) {
			_, _, g := pair(b, Options{Mechanism: name})
			set1(b, g, Shut)
			b.ReportAllocs()
			for b.Loop() {
				if s, err := g.State(); s != Shut || err != nil {
					b.Fatal(s, err)
				}
			}
		})
	}
}

// BenchmarkPacket sends datagrams from a guest whose gate was never there, and
// from one whose gate was shut and is open.
func BenchmarkPacket(b *testing.B) {
	for _, name := range []string{"never", "nftables", "nftables+tc", "cgroup+tc"} {
		b.Run(name, func(b *testing.B) {
			mechanism := strings.Replace(name, "never", "nftables", 1)
			a, peer, g := pair(b, Options{Mechanism: mechanism})
			if name != "never" {
				set1(b, g, Shut)
				set1(b, g, Open)
			}
			sink := peer.listenUDP(b, "10.1.0.2:7000")
			defer sink.Close()
			a.must(b, func() error {
				c, err := net.Dial("udp", "10.1.0.2:7000")
				if err != nil {
					return err
				}
				defer c.Close()
				for b.Loop() {
					if _, err := c.Write([]byte("x")); err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
}

func (h *host) listenUDP(b *testing.B, address string) net.PacketConn {
	var c net.PacketConn
	h.must(b, func() (err error) {
		c, err = net.ListenPacket("udp", address)
		return err
	})
	return c
}

// BenchmarkNew is what a guest's boot pays: probing and preparing.
func BenchmarkNew(b *testing.B) {
	for _, name := range []string{"nftables", "tc", "fib", ""} {
		b.Run("mechanism="+name, func(b *testing.B) {
			h := newHosts(b, 1)[0]
			h.must(b, func() error {
				for b.Loop() {
					g, err := New(Options{Mechanism: name})
					if err != nil {
						return err
					}
					if err := g.Detach(); err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
}
