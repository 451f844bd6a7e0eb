package sockdiag

// verdict is what a socket holds; an empty reason means nothing that a drain waits for.
type verdict struct {
	reason         string
	unread, unsent uint64
	queued         uint32
}

// Reasons, as they stand in Socket.Reason. Constants: a look allocates none of them.
const (
	whyAccept    = "connections wait to be accepted"
	whyHalfOpen  = "handshake not finished"
	whyConnect   = "connecting"
	whyUnread    = "received bytes not read by the process"
	whyUnsent    = "sent bytes not acknowledged by the peer"
	whyQueued    = "sent bytes not gone from this kernel"
	whyPeer      = "sent bytes not read by the other end"
	whyBoth      = "bytes in both directions"
	whyClosing   = "close not acknowledged by the peer"
	whyGap       = "bytes received out of order: a gap before them is not filled"
	whyBacklog   = "packets wait in the socket's backlog"
	whyDevice    = "packets wait in front of the device"
	whyInherited = "inherited connection"
	whySoftnet   = "packets wait in a processor's backlog"
)

// tcpVerdict decides for one TCP or MPTCP socket. The queues of tcp_diag_get_info (net/ipv4/tcp_diag.c):
//
//   - LISTEN: rqueue is the length of the accept queue, wqueue its limit, which holds nothing.
//   - else: rqueue is rcv_nxt - copied_seq, wqueue is write_seq - snd_una. Both count a FIN as one byte.
//
// So a connection whose peer has closed shows one unread "byte" until its process happens to read the end
// (a pool of idle connections may never), and one that we closed shows one unsent. The first holds nothing
// and must not block a drain; the second is an exchange that the peer still owes us an answer to, and counts.
func tcpVerdict(r *inetRow) verdict {
	rq, wq := uint64(r.rqueue), uint64(r.wqueue)
	switch r.state {
	case tcpListen:
		return verdict{reason: because(r.rqueue > 0, whyAccept), queued: r.rqueue}
	case tcpSynRecv, tcpNewSynRecv:
		// A client believes, or is about to believe, that it is connected.
		return verdict{reason: whyHalfOpen, queued: 1, unread: rq}
	case tcpSynSent:
		return verdict{reason: whyConnect, unsent: lessOne(wq)} // more than the SYN: TCP Fast Open
	case tcpEstablished, tcpFinWait2:
		return openVerdict(r, rq, wq)
	case tcpCloseWait: // the peer has closed, the process not yet: idle unless there are bytes
		return bytesVerdict(lessOne(rq), wq, whyUnsent)
	case tcpFinWait1:
		return verdict{reason: whyClosing, unread: rq, unsent: lessOne(wq)}
	case tcpLastAck, tcpClosing:
		return verdict{reason: whyClosing, unread: lessOne(rq), unsent: lessOne(wq)}
	}
	return verdict{} // TIME_WAIT and CLOSE hold nothing
}

// openVerdict is for states in which more may still arrive. Memory without readable bytes is the out-of-order queue
// (tcp_queue_rcv and tcp_data_queue_ofo charge both to sk_rmem_alloc); the backlog is what arrived while the process
// had the socket locked.
func openVerdict(r *inetRow, rq, wq uint64) verdict {
	v := bytesVerdict(rq, wq, whyUnsent)
	switch {
	case v.reason != "":
	case r.memory.backlog > 0:
		v = verdict{reason: whyBacklog, unread: uint64(r.memory.backlog)}
	case r.memory.rmem > 0:
		v = verdict{reason: whyGap, unread: uint64(r.memory.rmem)}
	}
	return v
}

// datagramVerdict is for UDP, UDP-Lite and raw: rqueue and wqueue are memory in use (udp_diag_get_info, raw_diag_get_info).
func datagramVerdict(r *inetRow) verdict {
	return bytesVerdict(uint64(r.rqueue), uint64(r.wqueue), whyQueued)
}

// unixVerdict: of a listening socket rqueue counts connections, of others bytes (sk_diag_show_rqlen,
// net/unix/diag.c); of a datagram socket only those of the first message. wqueue is memory of messages that the
// other end has not read, so a message of no bytes shows there.
func unixVerdict(r *unixRow) verdict {
	if r.state == tcpListen {
		n := max(r.rqueue, uint32(r.pending))
		return verdict{reason: because(n > 0, whyAccept), queued: n}
	}
	return bytesVerdict(uint64(r.rqueue), uint64(r.wqueue), whyPeer)
}

// memoryVerdict is for packet and netlink sockets.
func memoryVerdict(m memory) verdict {
	return bytesVerdict(uint64(m.rmem)+uint64(m.backlog), uint64(m.wmem), whyQueued)
}

func qdiscVerdict(r *qdiscRow) verdict {
	return verdict{reason: because(r.qlen > 0 || r.backlog > 0, whyDevice), unsent: uint64(r.backlog), queued: r.qlen}
}

func bytesVerdict(unread, unsent uint64, whyNotSent string) verdict {
	v := verdict{unread: unread, unsent: unsent}
	switch {
	case unread > 0 && unsent > 0:
		v.reason = whyBoth
	case unread > 0:
		v.reason = whyUnread
	case unsent > 0:
		v.reason = whyNotSent
	}
	return v
}

func because(is bool, why string) string {
	if is {
		return why
	}
	return ""
}

func lessOne(n uint64) uint64 {
	if n == 0 {
		return 0
	}
	return n - 1
}
