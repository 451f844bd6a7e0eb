package sockdiag

import (
	"encoding/binary"
)

// Lines of /proc/net, for kernels without a diag module. Nothing here allocates; a line that is not understood, such as
// a heading, is no row.

// fields walks the words of a line.
type fields struct{ rest []byte }

func (f *fields) next() []byte {
	at := 0
	for at < len(f.rest) && f.rest[at] == ' ' {
		at++
	}
	end := at
	for end < len(f.rest) && f.rest[end] != ' ' && f.rest[end] != '\n' {
		end++
	}
	word := f.rest[at:end]
	f.rest = f.rest[end:]
	return word
}

func (f *fields) skip(n int) {
	for range n {
		f.next()
	}
}

// number reads a word in base 10 or 16; anything else in it makes it false.
func number(b []byte, base uint64) (n uint64, ok bool) {
	if len(b) == 0 || len(b) > 19 {
		return 0, false
	}
	for _, c := range b {
		digit := uint64(99)
		switch {
		case c >= '0' && c <= '9':
			digit = uint64(c - '0')
		case c >= 'a' && c <= 'f':
			digit = uint64(c-'a') + 10
		case c >= 'A' && c <= 'F':
			digit = uint64(c-'A') + 10
		}
		if digit >= base {
			return 0, false
		}
		n = n*base + digit
	}
	return n, true
}

// parseProcInet reads a line of /proc/net/{tcp,udp,udplite,raw,icmp} and their v6 forms (get_tcp4_sock and others in
// net/ipv4/tcp_ipv4.c, udp.c, raw.c, ping.c):
//
//	sl local rem st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode ...
//
// The queues mean what they mean in inet_diag. id is where the addresses go; there is no cookie.
func parseProcInet(line []byte, id *[sockidLen]byte, r *inetRow) bool {
	f := fields{line}
	f.next()
	*id = [sockidLen]byte{}
	family, ok := procAddress(f.next(), id[4:20], id[0:2])
	far, ok2 := procAddress(f.next(), id[20:36], id[2:4])
	state, ok3 := number(f.next(), 16)
	queues := f.next()
	f.skip(4) // timer, retransmits, uid, timeout
	inode, ok4 := number(f.next(), 10)
	if !ok || !ok2 || !ok3 || !ok4 || family != far || state > 0xff || len(queues) != 17 || queues[8] != ':' {
		return false
	}
	sent, ok := number(queues[:8], 16)
	received, ok2 := number(queues[9:], 16)
	*r = inetRow{
		family: family, state: uint8(state), id: id[:],
		rqueue: uint32(received), wqueue: uint32(sent), inode: uint32(inode),
	}
	return ok && ok2
}

// procAddress reads "0100007F:1F90": words of network order printed as this machine's numbers, and a plain port.
func procAddress(word, addr, port []byte) (family uint8, ok bool) {
	switch len(word) {
	case 8 + 5:
		family = afInet
	case 32 + 5:
		family = afInet6
	default:
		return 0, false
	}
	at := len(word) - 5
	for i := 0; i < at; i += 8 {
		n, ok := number(word[i:i+8], 16)
		if !ok {
			return 0, false
		}
		binary.NativeEndian.PutUint32(addr[i/2:], uint32(n))
	}
	n, ok := number(word[at+1:], 16)
	binary.BigEndian.PutUint16(port, uint16(n))
	return family, ok && word[at] == ':'
}

// parseProcPacket: sk RefCnt Type Proto Iface R Rmem User Inode (packet_seq_show).
func parseProcPacket(line []byte, r *memoryRow) bool {
	f := fields{line}
	f.skip(2)
	kind, ok := number(f.next(), 10)
	proto, ok2 := number(f.next(), 16)
	f.skip(2)
	rmem, ok3 := number(f.next(), 10)
	f.next()
	inode, ok4 := number(f.next(), 10)
	*r = memoryRow{kind: uint8(kind), number: uint16(proto), inode: uint32(inode), memory: memory{rmem: uint32(rmem)}}
	return ok && ok2 && ok3 && ok4
}

// parseProcNetlink: sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode (netlink_native_seq_show).
func parseProcNetlink(line []byte, r *memoryRow) bool {
	f := fields{line}
	f.next()
	protocol, ok := number(f.next(), 10)
	port, ok2 := number(f.next(), 10)
	f.next()
	rmem, ok3 := number(f.next(), 10)
	wmem, ok4 := number(f.next(), 10)
	f.skip(3)
	inode, ok5 := number(f.next(), 10)
	*r = memoryRow{
		kind: 3, protocol: uint8(protocol), port: uint32(port), inode: uint32(inode),
		memory: memory{rmem: uint32(rmem), wmem: uint32(wmem)},
	}
	return ok && ok2 && ok3 && ok4 && ok5
}

// parseProcUnix: Num RefCount Protocol Flags Type St Inode Path (unix_seq_show). Flags has __SO_ACCEPTCON for a listening
// socket, St is SS_CONNECTED (3) for a connected one; the queues are not shown.
func parseProcUnix(line []byte, r *unixRow) bool {
	f := fields{line}
	f.skip(3)
	flags, ok := number(f.next(), 16)
	kind, ok2 := number(f.next(), 16)
	state, ok3 := number(f.next(), 16)
	inode, ok4 := number(f.next(), 10)
	*r = unixRow{kind: uint8(kind), state: tcpClose, inode: uint32(inode), name: f.next()}
	switch {
	case flags&0x10000 != 0:
		r.state = tcpListen
	case state == 3:
		r.state = tcpEstablished
	}
	return ok && ok2 && ok3 && ok4 && inode != 0
}

// parseSoftnet reads a line of /proc/net/softnet_stat (softnet_seq_show, net/core/net-procfs.c), one a processor: word
// 11 is the length of its backlog, word 12 its number, both since Linux 5.10.
func parseSoftnet(line []byte) (processor, backlog uint32, ok bool) {
	f := fields{line}
	f.skip(11)
	n, ok := number(f.next(), 16)
	cpu, ok2 := number(f.next(), 16)
	return uint32(cpu), uint32(n), ok && ok2
}

// parseProtocol reads a line of /proc/net/protocols: name, size of a socket, sockets in use in this namespace.
func parseProtocol(line []byte) (name []byte, sockets uint64, ok bool) {
	f := fields{line}
	name = f.next()
	f.next()
	sockets, ok = number(f.next(), 10)
	return name, sockets, ok
}

// eachLine cuts whole lines off b and returns what is left of the last one.
func eachLine(b []byte, f func(line []byte)) (rest []byte) {
	for {
		end := 0
		for end < len(b) && b[end] != '\n' {
			end++
		}
		if end == len(b) {
			return b
		}
		f(b[:end])
		b = b[end+1:]
	}
}
