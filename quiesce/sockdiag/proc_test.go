package sockdiag

import (
	"strings"
	"testing"
)

// Lines as Linux 6.18 prints them on a little-endian machine.
const (
	procTCP     = "   1: 0100007F:1F90 0200007F:C3D2 01 00000005:0000000A 00:00000000 00000000  1000        0 4711 1 0000000081662889 20 4 30 10 -1                    "
	procTCP6    = "   0: 00000000000000000000000001000000:0016 B80D012000000000000000000A000000:01BB 03 00000000:00000000 00:00000000 00000000     0        0 0 1 0000000081662889"
	procUDP     = "  913: 00000000:0044 00000000:0000 07 00000000:00000300 00:00000000 00000000     0        0 99 2 00000000 0        "
	procPacket  = "000000005d9 3      3    0003   2     1 768    0      4712  "
	procNetlink = "00000000b9f75c98 15  -1         00000002 768      0        0     2        0        4  "
	procUnix    = "000000002c051e8d: 00000003 00000000 00010000 0001 01   507 @/tmp/x"
	procSoftnet = "0004d9dd 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000007 00000001 00000000 00000000"
)

func TestParseProcInet(t *testing.T) {
	if !littleEndian() {
		t.Skip("lines of a little-endian machine")
	}
	for _, c := range []struct {
		line, local, remote string
		state               uint8
		sent, received      uint32
		inode               uint32
	}{
		{procTCP, "127.0.0.1:8080", "127.0.0.2:50130", tcpEstablished, 5, 10, 4711},
		{procTCP6, "[::1]:22", "[2001:db8::a]:443", tcpSynRecv, 0, 0, 0},
		{procUDP, "0.0.0.0:68", "0.0.0.0:0", tcpClose, 0, 768, 99},
	} {
		var r inetRow
		var id [sockidLen]byte
		if !parseProcInet([]byte(c.line), &id, &r) {
			t.Errorf("not parsed: %q", c.line)
			continue
		}
		local, remote := r.id.local(r.family).String(), r.id.remote(r.family).String()
		if local != c.local || remote != c.remote || r.state != c.state || r.wqueue != c.sent || r.rqueue != c.received || r.inode != c.inode || r.id.cookie() != 0 {
			t.Errorf("%s -> %s %+v", local, remote, r)
		}
	}
	for _, line := range []string{
		"", "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
		procTCP[:60], strings.Replace(procTCP, ":C3D2", ";C3D2", 1), strings.Replace(procTCP, "0200007F", "02000X7F", 1),
		strings.Replace(procTCP, "0200007F", "02000000000000000000000000000000", 1),
	} {
		var id [sockidLen]byte
		if parseProcInet([]byte(line), &id, new(inetRow)) {
			t.Errorf("taken for a socket: %q", line)
		}
	}
}

func littleEndian() bool { return cookie([]byte{1, 0, 0, 0, 0, 0, 0, 0}) == 1 }

func TestParseProcOthers(t *testing.T) {
	var m memoryRow
	if !parseProcPacket([]byte(procPacket), &m) || m.kind != 3 || m.number != 3 || m.memory.rmem != 768 || m.inode != 4712 {
		t.Errorf("packet: %+v", m)
	}
	if !parseProcNetlink([]byte(strings.Replace(procNetlink, "-1", "17", 1)), &m) || m.protocol != 15 || m.port != 17 || m.memory.rmem != 768 || m.inode != 4 {
		t.Errorf("netlink: %+v", m)
	}
	var u unixRow
	if !parseProcUnix([]byte(procUnix), &u) || u.kind != 1 || u.state != tcpListen || u.inode != 507 {
		t.Errorf("unix: %+v", u)
	}
	if cpu, n, ok := parseSoftnet([]byte(procSoftnet)); cpu != 1 || n != 7 || !ok {
		t.Errorf("softnet: %d %d %v", cpu, n, ok)
	}
	if _, _, ok := parseSoftnet([]byte(procSoftnet[:90])); ok {
		t.Error("softnet of an older kernel has no backlog to read")
	}
	name, n, ok := parseProtocol([]byte("UDP-Lite  1344      2       0   NI       0   yes  kernel"))
	if string(name) != "UDP-Lite" || n != 2 || !ok {
		t.Errorf("protocol: %s %d %v", name, n, ok)
	}
	for _, heading := range []string{"sk               RefCnt Type Proto  Iface R Rmem   User   Inode", "Num       RefCount Protocol Flags    Type St Inode Path",
		"sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode", "protocol  size sockets  memory press maxhdr"} {
		_, _, ok := parseProtocol([]byte(heading))
		if ok || parseProcPacket([]byte(heading), &m) || parseProcNetlink([]byte(heading), &m) || parseProcUnix([]byte(heading), &u) {
			t.Errorf("taken for a row: %q", heading)
		}
	}
}

func TestEachLine(t *testing.T) {
	var lines []string
	rest := eachLine([]byte("one\n\nthree\nrest"), func(b []byte) { lines = append(lines, string(b)) })
	if strings.Join(lines, "|") != "one||three" || string(rest) != "rest" {
		t.Errorf("%q, rest %q", lines, rest)
	}
}

func FuzzLines(f *testing.F) {
	for _, line := range []string{procTCP, procTCP6, procUDP, procPacket, procNetlink, procUnix, procSoftnet} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var id [sockidLen]byte
		var r inetRow
		if parseProcInet(b, &id, &r) {
			if r.family != afInet && r.family != afInet6 || r.id.cookie() != 0 {
				t.Errorf("%q: %+v", b, r)
			}
			r.id.local(r.family)
		}
		parseProcPacket(b, new(memoryRow))
		parseProcNetlink(b, new(memoryRow))
		parseProcUnix(b, new(unixRow))
		parseSoftnet(b)
		parseProtocol(b)
		n := 0
		rest := eachLine(b, func(line []byte) { n += len(line) + 1 })
		if n+len(rest) != len(b) {
			t.Errorf("%d bytes in lines and %d left of %d", n, len(rest), len(b))
		}
	})
}
