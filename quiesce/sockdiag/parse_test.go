package sockdiag

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"testing"
)

// Layouts of the tests are built word by word from the kernel's headers, not by the code under test.

func words(v ...uint32) []byte {
	var b []byte
	for _, w := range v {
		b = binary.NativeEndian.AppendUint32(b, w)
	}
	return b
}

func inetMessage(family, state uint8, rqueue, wqueue, inode uint32, attrs ...[]byte) []byte {
	b := []byte{family, state, 0, 0, 0x1f, 0x90, 0x01, 0xbb}
	src, dst := make([]byte, 16), make([]byte, 16)
	copy(src, []byte{10, 0, 0, 1})
	copy(dst, []byte{192, 0, 2, 7})
	b = append(append(b, src...), dst...)
	b = append(b, words(3, 0x11223344, 0x55667788, 0, rqueue, wqueue, 1000, inode)...)
	return append(b, bytes.Join(attrs, nil)...)
}

func attr(kind uint16, value []byte) []byte { return appendAttr(nil, kind, value) }

func TestParseInet(t *testing.T) {
	b := inetMessage(afInet, tcpEstablished, 5, 6, 77, attr(8, []byte{0}), attr(7, words(100, 1, 200, 2, 3, 4, 5, 300, 6)))
	var r inetRow
	if !parseInet(b, &r) {
		t.Fatal("not parsed")
	}
	if r.rqueue != 5 || r.wqueue != 6 || r.inode != 77 || r.memory != (memory{rmem: 100, wmem: 200, backlog: 300}) {
		t.Errorf("%+v", r)
	}
	if l, p := r.id.local(r.family).String(), r.id.remote(r.family).String(); l != "10.0.0.1:8080" || p != "192.0.2.7:443" {
		t.Errorf("%s -> %s", l, p)
	}
	if r.id.cookie() != 0x5566778811223344 {
		t.Errorf("cookie %#x", r.id.cookie())
	}
	for n := range inetMsgLen {
		if parseInet(b[:n], &r) {
			t.Fatalf("%d bytes taken for a message", n)
		}
	}
}

func TestRequests(t *testing.T) {
	zeros := func(n int) []byte { return make([]byte, n) }
	for name, c := range map[string]struct{ got, want []byte }{
		"tcp": {inetRequest(nil, afInet6, protoTCP, 0x1e3e, true, nil),
			bytes.Join([][]byte{words(72, 20|0x301<<16, 0, 0), {10, 6, 64, 0}, words(0x1e3e), zeros(48)}, nil)},
		"tcp of both": {inetRequest(nil, afUnspec, protoTCP, 0x1e3e, true, []byte{1, 4, 4, 0}),
			bytes.Join([][]byte{words(84, 18|0x301<<16, 0, 0), {0, 0, 0, 64}, zeros(48), words(0x1e3e, 0, 8|1<<16), {1, 4, 4, 0}}, nil)},
		"mptcp": {inetRequest(nil, afInet, protoMPTCP, 1, false, nil),
			bytes.Join([][]byte{words(80, 20|0x301<<16, 0, 0), {2, 255, 0, 0}, words(1), zeros(48), words(8|3<<16, 262)}, nil)},
		"unix":    {unixRequest(nil, 7), bytes.Join([][]byte{words(40, 20|0x301<<16, 0, 0), {1, 0, 0, 0}, words(7, 0, 0x1d, 0, 0)}, nil)},
		"packet":  {packetRequest(nil), bytes.Join([][]byte{words(36, 20|0x301<<16, 0, 0), {17, 0, 0, 0}, words(0, 16, 0, 0)}, nil)},
		"netlink": {netlinkRequest(nil), bytes.Join([][]byte{words(36, 20|0x301<<16, 0, 0), {16, 255, 0, 0}, words(0, 1, 0, 0)}, nil)},
		"destroy": {appendDestroy(nil, afInet, protoTCP, &[48]byte{1}, 9, flagAck),
			bytes.Join([][]byte{words(72, 21|0x5<<16, 9, 0), {2, 6, 0, 0}, words(0xffffffff), {1}, zeros(47)}, nil)},
	} {
		if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
			t.Skip("written out for little-endian")
		}
		if !bytes.Equal(c.got, c.want) {
			t.Errorf("%s:\n got %s\nwant %s", name, hex.EncodeToString(c.got), hex.EncodeToString(c.want))
		}
	}
}

func TestTCPVerdict(t *testing.T) {
	for _, c := range []struct {
		name           string
		state          uint8
		rqueue, wqueue uint32
		memory         memory
		want           verdict
	}{
		{"idle listener", tcpListen, 0, 128, memory{}, verdict{}},
		{"accept queue", tcpListen, 3, 128, memory{}, verdict{whyAccept, 0, 0, 3}},
		{"half-open", tcpSynRecv, 0, 0, memory{}, verdict{whyHalfOpen, 0, 0, 1}},
		{"connecting", tcpSynSent, 0, 1, memory{}, verdict{reason: whyConnect}},
		{"idle", tcpEstablished, 0, 0, memory{}, verdict{}},
		{"unread", tcpEstablished, 4, 0, memory{rmem: 768}, verdict{reason: whyUnread, unread: 4}},
		{"unsent", tcpEstablished, 0, 4, memory{}, verdict{reason: whyUnsent, unsent: 4}},
		{"both", tcpFinWait2, 4, 5, memory{}, verdict{reason: whyBoth, unread: 4, unsent: 5}},
		{"gap", tcpFinWait2, 0, 0, memory{rmem: 768}, verdict{reason: whyGap, unread: 768}},
		{"backlog", tcpEstablished, 0, 0, memory{rmem: 1, backlog: 900}, verdict{reason: whyBacklog, unread: 900}},
		{"peer closed, end unread", tcpCloseWait, 1, 0, memory{rmem: 768}, verdict{}},
		{"peer closed, end read", tcpCloseWait, 0, 0, memory{}, verdict{}},
		{"peer closed, bytes unread", tcpCloseWait, 6, 0, memory{}, verdict{reason: whyUnread, unread: 5}},
		{"peer closed, bytes unsent", tcpCloseWait, 1, 7, memory{}, verdict{reason: whyUnsent, unsent: 7}},
		{"our FIN alone", tcpFinWait1, 0, 1, memory{}, verdict{reason: whyClosing}},
		{"our FIN and bytes", tcpLastAck, 0, 8, memory{}, verdict{reason: whyClosing, unsent: 7}},
		{"both FINs", tcpClosing, 1, 1, memory{}, verdict{reason: whyClosing}},
		{"time wait", tcpTimeWait, 0, 0, memory{}, verdict{}},
		{"unknown state", 99, 9, 9, memory{}, verdict{}},
	} {
		r := inetRow{state: c.state, rqueue: c.rqueue, wqueue: c.wqueue, memory: c.memory}
		if got := tcpVerdict(&r); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestParseLocal(t *testing.T) {
	var u unixRow
	b := bytes.Join([][]byte{{1, 5, 1, 0}, words(42, 7, 0), attr(0, []byte("\x00a\x00b")), attr(2, words(43)), attr(3, words(50, 51)), attr(4, words(8, 9))}, nil)
	if !parseUnix(b, &u) || u.inode != 42 || u.peer != 43 || u.pending != 2 || u.rqueue != 8 || u.wqueue != 9 || u.cookie != 7 {
		t.Errorf("%+v", u)
	}
	if unixName(u.name) != "@a@b" || unixName([]byte("/run/x\x00")) != "/run/x" || unixName(nil) != "" || typeName(u.kind) != "seqpacket" || typeName(9) != "" {
		t.Errorf("names: %q", unixName(u.name))
	}
	var m memoryRow
	b = bytes.Join([][]byte{{16, 3, 15, 7}, words(1234, 0, 0, 42, 7, 0), attr(0, words(1, 2, 3, 4, 5, 6, 7, 8, 9))}, nil)
	if !parseNetlink(b, &m) || m.port != 1234 || m.inode != 42 || m.protocol != 15 || m.memory != (memory{1, 3, 8}) {
		t.Errorf("%+v", m)
	}
	b = bytes.Join([][]byte{{17, 3, 0, 3}, words(42, 7, 0), attr(6, words(1, 2, 3))}, nil)
	if !parsePacket(b, &m) || m.inode != 42 || m.number != 0x300 || m.memory != (memory{1, 3, 0}) {
		t.Errorf("%+v", m)
	}
	var q qdiscRow
	stats := bytes.Join([][]byte{attr(1, words(0, 0, 0)), attr(3, words(11, 12, 0, 0, 0))}, nil)
	b = bytes.Join([][]byte{words(0, 2, 0, 0, 0), attr(1, []byte("tbf\x00")), attr(7, stats)}, nil)
	if !parseQdisc(b, &q) || q.index != 2 || unixName(q.kind) != "tbf" || q.qlen != 11 || q.backlog != 12 {
		t.Errorf("%+v", q)
	}
}

func TestNextMessage(t *testing.T) {
	for name, b := range map[string][]byte{
		"short": make([]byte, 15), "length below header": words(15, 0, 0, 0), "length beyond": words(17, 0, 0, 0), "zero": words(0, 0, 0, 0),
	} {
		if _, _, _, err := nextMessage(b); !errors.Is(err, errMessage) {
			t.Errorf("%s: %v", name, err)
		}
	}
	h, payload, rest, err := nextMessage(append(words(18, 3|0x10<<16, 9, 0, 0xffff), 1, 2))
	if err != nil || h.kind != 3 || h.flags != 0x10 || h.seq != 9 || len(payload) != 2 || len(rest) != 2 {
		t.Errorf("%+v %d %d %v", h, len(payload), len(rest), err)
	}
}

// runFilter is inet_diag_bc_run of net/ipv4/inet_diag.c for the operations that notLoopback uses.
func runFilter(bc []byte, family uint8, addr []byte) bool {
	n := len(bc)
	for n > 0 {
		op := bc[len(bc)-n:]
		yes := true
		switch op[0] {
		case 1:
			yes = false
		case 8:
			value, bits := addr, int(op[5])
			if family != op[4] {
				if yes = family == afInet6 && op[4] == afInet && bytes.Equal(addr[:12], append(make([]byte, 10), 0xff, 0xff)); yes {
					value = addr[12:]
				}
			}
			yes = yes && bytes.Equal(value[:bits/8], op[12:12+bits/8])
		}
		if yes {
			n -= int(op[1])
		} else {
			n -= int(binary.NativeEndian.Uint16(op[2:]))
		}
	}
	return n == 0
}

func TestNotLoopback(t *testing.T) {
	mapped := func(b ...byte) []byte { return append(append(make([]byte, 10), 0xff, 0xff), b...) }
	for _, c := range []struct {
		family uint8
		addr   []byte
		keep   bool
	}{
		{afInet, []byte{127, 0, 0, 1}, false}, {afInet, []byte{127, 9, 9, 9}, false}, {afInet, []byte{10, 0, 0, 1}, true},
		{afInet6, append(make([]byte, 15), 1), false}, {afInet6, append(make([]byte, 15), 2), true},
		{afInet6, mapped(127, 0, 0, 1), false}, {afInet6, mapped(10, 0, 0, 1), true},
	} {
		if got := runFilter(notLoopback(), c.family, c.addr); got != c.keep {
			t.Errorf("%v kept: %v", c.addr, got)
		}
	}
}

func FuzzMessages(f *testing.F) {
	f.Add(inetMessage(afInet, 1, 1, 1, 1, attr(7, words(1, 2, 3, 4, 5, 6, 7, 8, 9))))
	f.Add(seal(append(newRequest(nil, 3, 0), inetMessage(afInet6, 10, 1, 1, 1)...)))
	f.Add(bytes.Join([][]byte{{1, 5, 1, 0}, words(42, 7, 0), attr(0, []byte("\x00a")), attr(4, words(8, 9))}, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		var i inetRow
		if parseInet(b, &i) {
			i.id.local(i.family)
			i.id.remote(i.family)
			if v := tcpVerdict(&i); v.reason == "" && (v.unread|v.unsent) != 0 || uint64(v.queued) > uint64(i.rqueue)+1 {
				t.Errorf("%+v gives %+v", i, v)
			}
		}
		var u unixRow
		if parseUnix(b, &u) && len(unixName(u.name)) > len(b) {
			t.Error("name longer than the message")
		}
		var m memoryRow
		parsePacket(b, &m)
		parseNetlink(b, &m)
		parseQdisc(b, new(qdiscRow))
		for rest := b; len(rest) > 0; {
			_, payload, next, err := nextMessage(rest)
			if err != nil {
				break
			}
			if len(payload)+headerLen > len(rest) || len(next) >= len(rest) {
				t.Fatalf("message of %d bytes in %d, %d to come", len(payload), len(rest), len(next))
			}
			rest = next
		}
	})
}
