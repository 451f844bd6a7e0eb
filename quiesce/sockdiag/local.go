package sockdiag

import (
	"encoding/binary"
	"strings"
)

// Rows and requests of the families that stay inside the machine: unix, packet, netlink; and of the qdiscs.

// unixRow is one socket of a unix_diag dump.
type unixRow struct {
	kind, state    uint8
	inode, peer    uint32
	cookie         uint64
	rqueue, wqueue uint32
	pending        int    // peers waiting in connect(2)
	name           []byte // as bound; an abstract name begins with a zero byte
}

// parseUnix reads struct unix_diag_msg { __u8 udiag_family, udiag_type, udiag_state, pad; __u32 udiag_ino;
// __u32 udiag_cookie[2]; } and the attributes NAME 0, PEER 2, ICONS 3, RQLEN 4 of include/uapi/linux/unix_diag.h.
func parseUnix(b []byte, r *unixRow) bool {
	if len(b) < 16 {
		return false
	}
	*r = unixRow{kind: b[1], state: b[2], inode: binary.NativeEndian.Uint32(b[4:]), cookie: cookie(b[8:])}
	for attrs := b[16:]; ; {
		kind, value, rest, ok := nextAttr(attrs)
		if !ok {
			return true
		}
		switch {
		case kind == 0:
			r.name = value
		case kind == 2 && len(value) >= 4:
			r.peer = binary.NativeEndian.Uint32(value)
		case kind == 3:
			r.pending = len(value) / 4
		case kind == 4 && len(value) >= 8:
			r.rqueue, r.wqueue = binary.NativeEndian.Uint32(value), binary.NativeEndian.Uint32(value[4:])
		}
		attrs = rest
	}
}

// unixRequest: struct unix_diag_req { __u8 sdiag_family, sdiag_protocol; __u16 pad; __u32 udiag_states, udiag_ino,
// udiag_show, udiag_cookie[2]; }.
func unixRequest(b []byte, states uint32) []byte {
	const show = 0x1 | 0x4 | 0x8 | 0x10 // NAME, PEER, ICONS, RQLEN
	b = append(newRequest(b, sockDiagByFamily, flagDump), afUnix, 0, 0, 0)
	b = appendU32(appendU32(appendU32(b, states), 0), show)
	return seal(append(b, make([]byte, 8)...))
}

// unixName spells an address as ss and /proc/net/unix do: zero bytes of abstract names become @.
func unixName(name []byte) string {
	if len(name) > 0 && name[0] != 0 {
		return strings.TrimRight(string(name), "\x00")
	}
	return strings.ReplaceAll(string(name), "\x00", "@")
}

func typeName(kind uint8) string {
	names := [...]string{1: "stream", 2: "dgram", 3: "raw", 5: "seqpacket"} // SOCK_*, include/linux/net.h
	if int(kind) < len(names) {
		return names[kind]
	}
	return ""
}

// memoryRow is one socket of a packet_diag or netlink_diag dump.
type memoryRow struct {
	kind, protocol uint8 // protocol: NETLINK_*
	port           uint32
	number         uint16 // packet: ethertype
	inode          uint32
	cookie         uint64
	memory         memory
}

// parsePacket reads struct packet_diag_msg { __u8 pdiag_family, pdiag_type; __u16 pdiag_num; __u32 pdiag_ino,
// pdiag_cookie[2]; } and PACKET_DIAG_MEMINFO (6), include/uapi/linux/packet_diag.h.
func parsePacket(b []byte, r *memoryRow) bool {
	if len(b) < 16 {
		return false
	}
	*r = memoryRow{
		kind: b[1], number: binary.NativeEndian.Uint16(b[2:]),
		inode: binary.NativeEndian.Uint32(b[4:]), cookie: cookie(b[8:]), memory: findMemory(b[16:], 6),
	}
	return true
}

// parseNetlink reads struct netlink_diag_msg { __u8 ndiag_family, ndiag_type, ndiag_protocol, ndiag_state; __u32
// ndiag_portid, ndiag_dst_portid, ndiag_dst_group, ndiag_ino, ndiag_cookie[2]; } and NETLINK_DIAG_MEMINFO (0),
// include/uapi/linux/netlink_diag.h.
func parseNetlink(b []byte, r *memoryRow) bool {
	if len(b) < 28 {
		return false
	}
	*r = memoryRow{
		kind: b[1], protocol: b[2], port: binary.NativeEndian.Uint32(b[4:]),
		inode: binary.NativeEndian.Uint32(b[16:]), cookie: cookie(b[20:]), memory: findMemory(b[28:], 0),
	}
	return true
}

func findMemory(attrs []byte, want uint16) memory {
	for {
		kind, value, rest, ok := nextAttr(attrs)
		if !ok {
			return memory{}
		}
		if kind == want {
			return parseMemory(value)
		}
		attrs = rest
	}
}

// packetRequest: struct packet_diag_req { __u8 sdiag_family, sdiag_protocol; __u16 pad; __u32 pdiag_ino, pdiag_show,
// pdiag_cookie[2]; }, PACKET_SHOW_MEMINFO.
func packetRequest(b []byte) []byte { return familyRequest(b, afPacket, 0, 0x10) }

// netlinkRequest has the same shape; NDIAG_PROTO_ALL, NDIAG_SHOW_MEMINFO.
func netlinkRequest(b []byte) []byte { return familyRequest(b, afNetlink, 0xff, 0x1) }

func familyRequest(b []byte, family, protocol uint8, show uint32) []byte {
	b = append(newRequest(b, sockDiagByFamily, flagDump), family, protocol, 0, 0)
	b = appendU32(appendU32(b, 0), show)
	return seal(append(b, make([]byte, 8)...))
}

// qdiscRow is one queueing discipline.
type qdiscRow struct {
	index         int32 // of its interface
	kind          []byte
	qlen, backlog uint32 // packets, bytes
}

// parseQdisc reads struct tcmsg { unsigned char family, pad; unsigned short pad; int tcm_ifindex; __u32 tcm_handle,
// tcm_parent, tcm_info; } with TCA_KIND (1) and TCA_STATS2 (7) holding TCA_STATS_QUEUE (3), which is struct
// gnet_stats_queue { __u32 qlen, backlog, drops, requeues, overlimits; }.
func parseQdisc(b []byte, r *qdiscRow) bool {
	if len(b) < 20 {
		return false
	}
	*r = qdiscRow{index: int32(binary.NativeEndian.Uint32(b[4:]))}
	for attrs := b[20:]; ; {
		kind, value, rest, ok := nextAttr(attrs)
		if !ok {
			return true
		}
		switch kind {
		case 1:
			r.kind = value
		case 7:
			r.qlen, r.backlog = parseQueueStats(value)
		}
		attrs = rest
	}
}

func parseQueueStats(attrs []byte) (qlen, backlog uint32) {
	for {
		kind, value, rest, ok := nextAttr(attrs)
		if !ok {
			return 0, 0
		}
		if kind == 3 && len(value) >= 8 {
			return binary.NativeEndian.Uint32(value), binary.NativeEndian.Uint32(value[4:])
		}
		attrs = rest
	}
}

const (
	rtmNewQdisc = 36
	rtmGetQdisc = 38
)

func qdiscRequest(b []byte) []byte {
	return seal(append(newRequest(b, rtmGetQdisc, flagDump), make([]byte, 20)...))
}
