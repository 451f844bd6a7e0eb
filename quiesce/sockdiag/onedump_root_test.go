//go:build root

package sockdiag

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestOneDumpIsBoth holds the dump of both families against those of each: the same rows with the same queues, memory and
// cookies, for every mask of states and with the filter, of this namespace only.
func TestOneDumpIsBoth(t *testing.T) {
	p := newPeer(t)
	ins := inspect(t, Options{})
	tcp := tcpSource(ins)
	if tcp.kind != byDiag {
		t.Skip("kernel without the tcp_diag module (CONFIG_INET_TCP_DIAG)")
	}
	if !tcp.both {
		t.Fatal("the kernel has diag, and no TCPDIAG_GETSOCK")
	}
	for _, at := range [][2]string{{"10.9.0.1", "10.9.0.2"}, {"fd09::1", "fd09::2"}, {"127.0.0.1", ""}, {"::1", ""}} {
		manyStates(t, p, at[0], at[1])
	}
	mapped := newSock(t, unix.AF_INET6, unix.SOCK_STREAM, 0)
	l := tcpListener(t, "127.0.0.1")
	mapped.must(unix.Connect(mapped.fd, &unix.SockaddrInet6{Addr: [16]byte{10: 0xff, 11: 0xff, 12: 127, 15: 1}, Port: int(l.name().Port())}))
	l.accept().write("to be read")
	until(t, ins, "in eight states", func([]Socket) bool {
		_, states := rowsOf(t, ins, busyStates|inheritStates, nil, afInet, afInet6)
		return len(states) == 8
	})
	for name, mask := range map[string]uint32{"busy": busyStates, "inherited": inheritStates, "listening": 1 << tcpListen, "all": everyState, "none": 0} {
		for _, filter := range [][]byte{nil, ins.filter} {
			same(t, fmt.Sprintf("%s, filter of %d bytes", name, len(filter)), func() (one, two []string) {
				one, _ = rowsOf(t, ins, mask, filter, afUnspec)
				two, _ = rowsOf(t, ins, mask, filter, afInet, afInet6)
				return one, two
			})
		}
	}
}

func tcpSource(ins *Inspector) *source {
	i := slices.IndexFunc(ins.spaces[0].sources, func(s source) bool { return s.proto == protoTCP })
	return &ins.spaces[0].sources[i]
}

// manyStates makes connections at an address, and at a far one if there is one, that hold things in many states.
func manyStates(t *testing.T, p *peerNs, near, far string) {
	t.Helper()
	l := tcpListener(t, near)
	dial := func() *sock {
		c := tcpSock(t, near)
		c.must(unix.Connect(c.fd, toSockaddr(l.name())))
		return c
	}
	dial().write("read by nobody")
	half := tcpSock(t, near)
	half.must(unix.SetNonblock(half.fd, true))
	half.deaf(0)
	_ = unix.Connect(half.fd, toSockaddr(l.name())) // SYN_SENT and SYN_RECV
	l.accept().write("unread")
	over := dial()
	other := l.accept()
	over.close()
	other.readEnd()
	other.close() // TIME_WAIT of the other
	silent := dial()
	silent.deaf(0)
	orphan := l.accept()
	orphan.write("unacknowledged")
	orphan.close() // FIN_WAIT1
	waits := dial()
	l.accept().must(unix.Shutdown(waits.fd, unix.SHUT_WR)) // FIN_WAIT2 and CLOSE_WAIT
	dial()                                                 // waits in LISTEN's queue
	if far == "" {
		return
	}
	var there *sock
	p.there(func() { there = tcpListener(t, far) })
	stuck, out := tcpSock(t, far), tcpSock(t, far)
	stuck.must(unix.SetNonblock(stuck.fd, true))
	stuck.deaf(0)
	_ = unix.Connect(stuck.fd, toSockaddr(there.name()))
	out.must(unix.Connect(out.fd, toSockaddr(there.name())))
	p.there(func() { there.accept().write("from afar") })
}

// rowsOf lists rows as text, in order, and how many there are in each state.
func rowsOf(t *testing.T, ins *Inspector, states uint32, filter []byte, families ...uint8) (rows []string, count map[string]int) {
	t.Helper()
	l := look{ins: ins, ctx: context.Background()}
	count = map[string]int{}
	for _, f := range families {
		err := l.rows(ins.spaces[0], tcpSource(ins), f, states, filter, func(r *inetRow) {
			rows = append(rows, fmt.Sprintf("%+v", *r))
			count[stateName(r.state)]++
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(rows)
	return rows, count
}

// same takes both again until they are: packets are on their way.
func same(t *testing.T, what string, take func() (one, two []string)) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		one, two := take()
		if slices.Equal(one, two) {
			t.Logf("%s: %d rows", what, len(one))
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: in one dump\n%s\nin two\n%s", what, strings.Join(one, "\n"), strings.Join(two, "\n"))
		}
	}
}

// TestWithoutOneDump: where the kernel has no such dump each family is asked for, and the same is found.
func TestWithoutOneDump(t *testing.T) {
	p := newPeer(t)
	ins, old := inspect(t, Options{}), inspect(t, Options{})
	if !tcpSource(ins).both {
		t.Skip("kernel without TCPDIAG_GETSOCK")
	}
	tcpSource(old).both = false
	for _, at := range [][2]string{{"10.9.0.1", "10.9.0.2"}, {"fd09::1", "fd09::2"}} {
		manyStates(t, p, at[0], at[1])
	}
	same(t, "inherited", func() (one, two []string) { return lines(inherited(t, ins)), lines(inherited(t, old)) })
	same(t, "busy", func() (one, two []string) { return lines(busy(t, ins)), lines(busy(t, old)) })
}

func lines(found []Socket) (out []string) {
	for _, s := range found {
		out = append(out, s.String())
	}
	slices.Sort(out)
	return out
}
