package sockdiag

import (
	"encoding/binary"
	"net/netip"
	"time"

	"rouse/internal/fmt"
)

// Socket is one socket, or one other queue of the kernel, and what it holds.
type Socket struct {
	_ [0]func() // not to be compared by ==: for that the compiler would write a function

	Netns    uint64 `json:"netns,omitempty"` // inode of its network namespace; 0 is the Inspector's own
	Protocol string `json:"protocol"`        // tcp, mptcp, udp, udplite, raw, icmp, unix, packet, netlink, vsock, pipe, qdisc, softnet
	Type     string `json:"type,omitempty"`  // unix and packet: stream, dgram, seqpacket, raw; qdisc: its kind
	State    string `json:"state,omitempty"` // as ss(8) names it in the kernel's spelling: ESTABLISHED, SYN_RECV, ...
	Local    string `json:"local,omitempty"` // address and port; for unix the path, or @ and the abstract name
	Remote   string `json:"remote,omitempty"`
	Cookie   uint64 `json:"cookie,omitempty"` // the kernel's name for it, never used twice; 0 where only /proc is there
	Inode    uint64 `json:"inode,omitempty"`  // in sockfs; 0 when no descriptor was made for it yet, or is left

	// Unread are bytes that arrived and were not read by their process. TCP and unix streams count payload; UDP, raw,
	// packet and netlink count kernel memory, which is more (Documentation/networking: sk_rmem_alloc).
	Unread uint64 `json:"unread,omitempty"`
	// Unsent are bytes written and not yet acknowledged by the peer (TCP, payload), or not yet gone from this
	// kernel (others, memory).
	Unsent uint64 `json:"unsent,omitempty"`
	Queued uint32 `json:"queued,omitempty"` // connections waiting in accept(2)'s queue; packets, for qdisc and softnet

	InFlight uint32 `json:"in-flight,omitempty"` // descriptors that wait in a unix socket's queue

	PID       int    `json:"pid,omitempty"`       // a process that has it open, the lowest; 0 when none has
	Comm      string `json:"command,omitempty"`   // that process's name, at most 15 bytes
	Interface string `json:"interface,omitempty"` // qdisc rows
	Reason    string `json:"reason,omitempty"`    // why it counts

	Since time.Time `json:"since,omitzero"` // when this Inspector first found it busy; Busy and Wait only

	family  uint8    // AF_*
	proto   uint16   // IPPROTO_*, for Destroy
	state   uint8    // TCP_*
	id      [48]byte // struct inet_diag_sockid as the kernel gave it, for Destroy
	peer    uint64   // unix: inode of the other end
	peerPID int      // unix: process that made the other end, where peer is not known
	pipe    bool     // Inode is not one of sockfs
}

// String is one line for people.
func (s Socket) String() string {
	out := s.Protocol
	if s.Interface != "" {
		out += " " + s.Interface
	}
	if s.Local != "" {
		out += " " + s.Local
	}
	if s.Remote != "" {
		out += " -> " + s.Remote
	}
	if s.State != "" {
		out += " " + s.State
	}
	out += fmt.Sprintf(": %s (unread %d, unsent %d, queued %d)", s.Reason, s.Unread, s.Unsent, s.Queued)
	if s.PID != 0 {
		out += fmt.Sprintf(" pid %d %s", s.PID, s.Comm)
	}
	return out
}

// TCP states, include/net/tcp_states.h. Other families use ESTABLISHED, CLOSE and LISTEN of them.
const (
	tcpEstablished = 1
	tcpSynSent     = 2
	tcpSynRecv     = 3
	tcpFinWait1    = 4
	tcpFinWait2    = 5
	tcpTimeWait    = 6
	tcpClose       = 7
	tcpCloseWait   = 8
	tcpLastAck     = 9
	tcpListen      = 10
	tcpClosing     = 11
	tcpNewSynRecv  = 12 // request sockets; reported as SYN_RECV (inet_req_diag_fill)
)

var stateNames = [...]string{
	tcpEstablished: "ESTABLISHED", tcpSynSent: "SYN_SENT", tcpSynRecv: "SYN_RECV", tcpFinWait1: "FIN_WAIT1",
	tcpFinWait2: "FIN_WAIT2", tcpTimeWait: "TIME_WAIT", tcpClose: "CLOSE", tcpCloseWait: "CLOSE_WAIT",
	tcpLastAck: "LAST_ACK", tcpListen: "LISTEN", tcpClosing: "CLOSING", tcpNewSynRecv: "SYN_RECV",
}

func stateName(s uint8) string {
	if int(s) < len(stateNames) && stateNames[s] != "" {
		return stateNames[s]
	}
	return fmt.Sprintf("STATE_%d", s)
}

// sockid reads struct inet_diag_sockid, include/uapi/linux/inet_diag.h:
//
//	struct inet_diag_sockid {
//		__be16 idiag_sport; __be16 idiag_dport;
//		__be32 idiag_src[4]; __be32 idiag_dst[4];
//		__u32 idiag_if; __u32 idiag_cookie[2];
//	};
type sockid []byte

const sockidLen = 48

func (id sockid) local(family uint8) netip.AddrPort {
	return netip.AddrPortFrom(address(family, id[4:20]), binary.BigEndian.Uint16(id[0:]))
}

func (id sockid) remote(family uint8) netip.AddrPort {
	return netip.AddrPortFrom(address(family, id[20:36]), binary.BigEndian.Uint16(id[2:]))
}

func (id sockid) cookie() uint64 { return cookie(id[40:48]) }

// cookie reads the two words in which every diag family hands out a socket's 64 bits, low word first.
func cookie(b []byte) uint64 {
	return uint64(binary.NativeEndian.Uint32(b)) | uint64(binary.NativeEndian.Uint32(b[4:]))<<32
}

func address(family uint8, b []byte) netip.Addr {
	if family == afInet {
		return netip.AddrFrom4([4]byte(b[:4]))
	}
	return netip.AddrFrom16([16]byte(b[:16]))
}

// Address families, include/linux/socket.h. Kept here so that the parsers build anywhere.
const (
	afUnspec  = 0
	afUnix    = 1
	afInet    = 2
	afInet6   = 10
	afNetlink = 16
	afPacket  = 17
)

// Protocols, include/uapi/linux/in.h.
const (
	protoICMP    = 1
	protoTCP     = 6
	protoUDP     = 17
	protoUDPLite = 136
	protoRaw     = 255
	protoMPTCP   = 262
)
