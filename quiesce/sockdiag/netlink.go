package sockdiag

import (
	"encoding/binary"
	"errors"

	"rouse/internal/fmt"
)

// Message kinds and flags, include/uapi/linux/netlink.h, sock_diag.h, rtnetlink.h.
const (
	nlmsgError = 2
	nlmsgDone  = 3

	flagRequest  = 0x1
	flagAck      = 0x4
	flagDumpIntr = 0x10
	flagDump     = 0x300 // NLM_F_ROOT | NLM_F_MATCH

	tcpDiagGetSock   = 18
	sockDiagByFamily = 20
	sockDestroy      = 21

	headerLen = 16
	attrMask  = 0x3fff // without NLA_F_NESTED and NLA_F_NET_BYTEORDER
)

// errMessage is what a malformed answer of the kernel is reported as.
var errMessage = errors.New("malformed netlink message")

type header struct {
	kind, flags uint16
	seq         uint32
}

// nextMessage cuts the first netlink message off b. rest is empty after the last one.
func nextMessage(b []byte) (h header, payload, rest []byte, err error) {
	if len(b) < headerLen {
		return h, nil, nil, fmt.Errorf("%d bytes where a header was expected: %w", len(b), errMessage)
	}
	n := int(binary.NativeEndian.Uint32(b))
	if n < headerLen || n > len(b) {
		return h, nil, nil, fmt.Errorf("length %d in %d bytes: %w", n, len(b), errMessage)
	}
	h = header{binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint16(b[6:]), binary.NativeEndian.Uint32(b[8:])}
	return h, b[headerLen:n], b[min(align4(n), len(b)):], nil
}

// nextAttr cuts the first attribute off b. ok is false at the end, and at anything malformed: what
// follows it cannot be read either, and a look must not fail for an attribute it does not need.
func nextAttr(b []byte) (kind uint16, value, rest []byte, ok bool) {
	if len(b) < 4 {
		return 0, nil, nil, false
	}
	n := int(binary.NativeEndian.Uint16(b))
	if n < 4 || n > len(b) {
		return 0, nil, nil, false
	}
	return binary.NativeEndian.Uint16(b[2:]) & attrMask, b[4:n], b[min(align4(n), len(b)):], true
}

func align4(n int) int { return (n + 3) &^ 3 }

// requestSize holds the longest request: TCP's with its filter.
const requestSize = 160

// newRequest begins a message of that kind and flags in the room of b, of which nothing is kept; seal gives it its length.
func newRequest(b []byte, kind, flags uint16) []byte {
	b = append(b[:0], make([]byte, headerLen)...)
	binary.NativeEndian.PutUint16(b[4:], kind)
	binary.NativeEndian.PutUint16(b[6:], flags|flagRequest)
	return b
}

func seal(b []byte) []byte {
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	return b
}

func setSeq(b []byte, seq uint32) { binary.NativeEndian.PutUint32(b[8:], seq) }

func appendU32(b []byte, v uint32) []byte { return binary.NativeEndian.AppendUint32(b, v) }

func appendAttr(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// errnoOf reads the code that NLMSG_ERROR and NLMSG_DONE carry: 0, or a negated errno. A dump that fails
// while it runs (an inet_diag protocol whose module is missing) says so only in its NLMSG_DONE.
func errnoOf(payload []byte) int {
	if len(payload) < 4 {
		return 0
	}
	return -int(int32(binary.NativeEndian.Uint32(payload)))
}
