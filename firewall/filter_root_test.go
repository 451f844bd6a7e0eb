//go:build root

package firewall

import (
	"encoding/binary"
	"net"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The kernel itself runs the programs on packets of ours (BPF_PROG_TEST_RUN).
func TestFilterVerdicts(t *testing.T) {
	syn, ack := tcpHeader(flagSyn), tcpHeader(flagAck)
	hop := []byte{6, 0, 1, 4, 0, 0, 0, 0} // hop-by-hop options, then TCP
	first, later := []byte{6, 0, 0, 1, 0, 0, 0, 1}, []byte{6, 0, 0, 9, 0, 0, 0, 1}
	hosts := newHosts(t, 2)
	wire(t, hosts[0], hosts[1], 1) // packets come by its link; from loopback all pass
	for _, c := range []struct {
		name   string
		state  State
		packet []byte
		pass   bool
	}{
		{"open", Open, ip4(6, syn), true},
		{"shut", Shut, ip4(6, ack), false},
		{"hold: SYN", Hold, ip4(6, syn), false},
		{"hold: SYN and ACK", Hold, ip4(6, tcpHeader(flagSyn|flagAck)), true},
		{"hold: ACK", Hold, ip4(6, ack), true},
		{"hold: ICMP", Hold, ip4(1, make([]byte, 20)), true},
		{"hold: IPv6 SYN", Hold, ip6(6, syn), false},
		{"hold: IPv6 ACK", Hold, ip6(6, ack), true},
		{"hold: SYN behind options", Hold, ip6(0, append(hop, syn...)), false},
		{"hold: ACK behind options", Hold, ip6(0, append(hop, ack...)), true},
		{"hold: SYN in a first fragment", Hold, ip6(44, append(first, syn...)), false},
		{"hold: later fragment", Hold, ip6(44, append(later, syn...)), true},
		{"hold: header cut short", Hold, ip4(6, syn)[:24], true},
		{"shut: header cut short", Shut, ip4(6, syn)[:24], false},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, tc := range []bool{true, false} {
				v, err := newValve(tc, nil)
				if err != nil {
					t.Fatal(err)
				}
				if err := v.set(c.state); err != nil {
					t.Fatal(err)
				}
				for i, p := range v.progs {
					got := testRun(t, hosts[0], p.fd, c.packet)
					pass := got == cgroupPass
					if tc {
						pass = int32(got) == tcPass
					}
					if pass != c.pass {
						t.Errorf("tc=%t direction %d: verdict %d, want pass=%t", tc, i, int32(got), c.pass)
					}
				}
				v.Close()
			}
		})
	}
}

func tcpHeader(flags byte) []byte {
	b := make([]byte, 20)
	b[12], b[13] = 5<<4, flags
	return b
}

func ip4(protocol byte, payload []byte) []byte {
	b := make([]byte, 20, 60)
	b[0], b[8], b[9] = 0x45, 64, protocol
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(payload)))
	return append(b, payload...)
}

func ip6(next byte, payload []byte) []byte {
	b := make([]byte, 40, 100)
	b[0], b[6], b[7] = 0x60, next, 64
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	return append(b, payload...)
}

// testRun gives a program's return value. The packet is put behind an Ethernet
// header, which tells the kernel its protocol.
func testRun(t *testing.T, h *host, fd int, packet []byte) uint32 {
	t.Helper()
	frame := make([]byte, 14, 200)
	kind := uint16(etherIPv4)
	if packet[0]>>4 == 6 {
		kind = etherIPv6
	}
	binary.BigEndian.PutUint16(frame[12:], kind)
	frame = append(frame, packet...)
	attr := struct {
		fd, result, sizeIn, sizeOut uint32
		in, out                     unsafe.Pointer
		repeat, duration            uint32
		contextIn, contextOut       uint32
		context, _                  unsafe.Pointer
	}{fd: uint32(fd), sizeIn: uint32(len(frame)), in: unsafe.Pointer(&frame[0])}
	h.must(t, func() error {
		ifi, err := net.InterfaceByName("to-b")
		if err != nil {
			return err
		}
		skb := make([]byte, 192)
		binary.NativeEndian.PutUint32(skb[skbIfindex:], uint32(ifi.Index))
		attr.contextIn, attr.context = uint32(len(skb)), unsafe.Pointer(&skb[0])
		_, err = bpf(unix.BPF_PROG_TEST_RUN, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
		return err
	})
	return attr.result
}

func TestInterfaceIndex(t *testing.T) {
	hosts := newHosts(t, 2)
	wire(t, hosts[0], hosts[1], 1)
	hosts[0].must(t, func() error {
		all, err := net.Interfaces()
		if err != nil {
			return err
		}
		if len(all) < 2 {
			t.Errorf("only %d interfaces", len(all))
		}
		for _, i := range all {
			if got := interfaceIndex(i.Name); got != i.Index {
				t.Errorf("%s has index %d, want %d", i.Name, got, i.Index)
			}
		}
		for _, none := range []string{"", "none", "a-name-that-is-too-long", "to-b\x00x"} {
			if got := interfaceIndex(none); got != 0 {
				t.Errorf("%q has index %d", none, got)
			}
		}
		return nil
	})
}
