package sockdiag

import "encoding/binary"

// inetRow is one socket of an inet_diag dump. It points into the receive buffer and lives until the next message.
type inetRow struct {
	family, state  uint8
	id             sockid
	rqueue, wqueue uint32
	inode          uint32
	memory         memory
}

// memory are the entries of SK_MEMINFO_* (include/uapi/linux/sock_diag.h) that a drain looks at.
type memory struct {
	rmem, wmem, backlog uint32 // bytes of kernel memory
}

// parseMemory reads an SKMEMINFO attribute: words RMEM_ALLOC, RCVBUF, WMEM_ALLOC, SNDBUF, FWD_ALLOC,
// WMEM_QUEUED, OPTMEM, BACKLOG, DROPS.
func parseMemory(b []byte) (m memory) {
	if len(b) >= 12 {
		m.rmem = binary.NativeEndian.Uint32(b)
		m.wmem = binary.NativeEndian.Uint32(b[8:])
	}
	if len(b) >= 32 {
		m.backlog = binary.NativeEndian.Uint32(b[28:])
	}
	return m
}

const (
	inetMsgLen     = 72
	inetAttrMem    = 7 // INET_DIAG_SKMEMINFO
	inetReqBytes   = 1 // INET_DIAG_REQ_BYTECODE
	inetReqProto   = 3 // INET_DIAG_REQ_PROTOCOL, Linux 5.9
	inetDiagNoPort = 0xffffffff
)

// parseInet reads struct inet_diag_msg and its attributes:
//
//	struct inet_diag_msg {
//		__u8 idiag_family, idiag_state, idiag_timer, idiag_retrans;
//		struct inet_diag_sockid id;
//		__u32 idiag_expires, idiag_rqueue, idiag_wqueue, idiag_uid, idiag_inode;
//	};
func parseInet(b []byte, r *inetRow) bool {
	if len(b) < inetMsgLen {
		return false
	}
	*r = inetRow{
		family: b[0], state: b[1], id: sockid(b[4 : 4+sockidLen]),
		rqueue: binary.NativeEndian.Uint32(b[56:]), wqueue: binary.NativeEndian.Uint32(b[60:]),
		inode: binary.NativeEndian.Uint32(b[68:]),
	}
	for attrs := b[inetMsgLen:]; ; {
		kind, value, rest, ok := nextAttr(attrs)
		if !ok {
			return true
		}
		if kind == inetAttrMem {
			r.memory = parseMemory(value)
		}
		attrs = rest
	}
}

// inetRequest asks for all sockets of a family and protocol in the states of the mask (bit n is state n):
//
//	struct inet_diag_req_v2 {
//		__u8 sdiag_family, sdiag_protocol, idiag_ext, pad;
//		__u32 idiag_states;
//		struct inet_diag_sockid id;
//	};
//
// filter is a program for INET_DIAG_REQ_BYTECODE, or nil. IPPROTO_MPTCP does not fit in sdiag_protocol: it goes in an
// attribute of its own, and IPPROTO_RAW stands in its place so that a kernel without the attribute does not answer with TCP.
//
// Family afUnspec is for TCP alone and stands for both: it takes the older TCPDIAG_GETSOCK, which the kernel turns into the
// same dump without a family to compare with (inet_diag_dump_compat, net/ipv4/inet_diag.c), so that its table, the work
// of a look, is walked once instead of twice:
//
//	struct inet_diag_req {
//		__u8 idiag_family, idiag_src_len, idiag_dst_len, idiag_ext;
//		struct inet_diag_sockid id;
//		__u32 idiag_states, idiag_dbs;
//	};
func inetRequest(b []byte, family uint8, proto uint16, states uint32, withMemory bool, filter []byte) []byte {
	short, ext := uint8(proto), uint8(0)
	if proto > 255 {
		short = protoRaw
	}
	if withMemory {
		ext = 1 << (inetAttrMem - 1)
	}
	if family == afUnspec {
		b = append(newRequest(b, tcpDiagGetSock, flagDump), family, 0, 0, ext)
		b = append(b, make([]byte, sockidLen)...)
		b = appendU32(appendU32(b, states), 0)
	} else {
		b = append(newRequest(b, sockDiagByFamily, flagDump), family, short, ext, 0)
		b = appendU32(b, states)
		b = append(b, make([]byte, sockidLen)...)
	}
	if filter != nil {
		b = appendAttr(b, inetReqBytes, filter)
	}
	if proto > 255 {
		b = appendAttr(b, inetReqProto, appendU32(nil, uint32(proto)))
	}
	return seal(b)
}

// appendDestroy appends the SOCK_DESTROY of one socket. The kernel looks it up by its addresses and then insists on
// the cookie (sock_diag_check_cookie), so that a newer connection with the same addresses is never hit.
func appendDestroy(b []byte, family, proto uint8, id *[sockidLen]byte, seq uint32, flags uint16) []byte {
	b = appendU32(b, headerLen+8+sockidLen)
	b = binary.NativeEndian.AppendUint16(b, sockDestroy)
	b = binary.NativeEndian.AppendUint16(b, flagRequest|flags)
	b = appendU32(b, seq)
	b = appendU32(b, 0)
	b = append(b, family, proto, 0, 0)
	b = appendU32(b, 0xffffffff)
	return append(b, id[:]...)
}

// notLoopback is the filter that leaves out connections whose far end is in 127.0.0.0/8 (mapped addresses are matched
// by the kernel itself) or is ::1. An operation is { u8 code; u8 yes; u16 no }, both counted from its own start; running
// off the end by four bytes rejects, reaching it exactly accepts (inet_diag_bc_run).
func notLoopback() []byte {
	const (
		jmp, dCond = 1, 8 // INET_DIAG_BC_JMP, INET_DIAG_BC_D_COND
		v4, v6     = 4 + 8 + 4, 4 + 8 + 16
	)
	op := func(b []byte, code, yes uint8, no int) []byte {
		return binary.NativeEndian.AppendUint16(append(b, code, yes), uint16(no))
	}
	cond := func(b []byte, family, prefix uint8, addr []byte) []byte {
		return append(appendU32(append(b, family, prefix, 0, 0), inetDiagNoPort), addr...)
	}
	b := cond(op(nil, dCond, v4, v4+4), afInet, 8, []byte{127, 0, 0, 0})
	b = op(b, jmp, 4, 4+v6+4+4) // past the end: rejected
	b = cond(op(b, dCond, v6, v6+4), afInet6, 128, append(make([]byte, 15), 1))
	return op(b, jmp, 4, 8)
}
