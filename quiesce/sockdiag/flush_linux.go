package sockdiag

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
)

// ErrUnsupported is returned when the kernel lacks what a step needs; the error's text names the option.
var ErrUnsupported = errors.New("not supported by this kernel")

// FlushConntrack forgets every tracked connection of the calling thread's network namespace. A kernel without connection
// tracking, or with an empty table, is fine and is not asked, for asking makes it start modprobe. A table with entries in a
// kernel without CONFIG_NF_CT_NETLINK cannot be flushed: the error then is ErrUnsupported, and what stays behind are
// records of connections whose sockets are destroyed, which time out by themselves.
func FlushConntrack() error {
	count, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
	if errors.Is(err, os.ErrNotExist) || bytes.Equal(bytes.TrimSpace(count), []byte("0")) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("count tracked connections: %w", err)
	}
	c, err := dial(unix.NETLINK_NETFILTER)
	if err == nil {
		defer c.close()
		err = c.ask(conntrackFlush())
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPROTONOSUPPORT) {
		return fmt.Errorf("flush conntrack: %w: CONFIG_NF_CT_NETLINK", ErrUnsupported)
	}
	if err != nil {
		return fmt.Errorf("flush conntrack: %w", err)
	}
	return nil
}

// conntrackFlush is IPCTNL_MSG_CT_DELETE (2) of NFNL_SUBSYS_CTNETLINK (1) without a tuple: everything. It is followed
// by struct nfgenmsg { __u8 nfgen_family, version; __be16 res_id; }.
func conntrackFlush() []byte {
	return seal(append(newRequest(nil, 1<<8|2, flagAck), unix.AF_UNSPEC, 0, 0, 0))
}

// ask sends one request and waits for its acknowledgement.
func (c *conn) ask(request []byte) error {
	return c.dump(context.Background(), make([]byte, 4096), request, func([]byte) {}, func() {})
}

// FlushNeighbours removes what the calling thread's network namespace has learned of its neighbours (ARP and neighbour
// discovery): a clone may live on another link than its twin. Entries that somebody configured stay: permanent ones, those
// of links that resolve nothing (NOARP), and those that a control plane has put there (NTF_EXT_LEARNED).
func FlushNeighbours() error {
	c, err := dial(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer c.close()
	var learned [][]byte
	each := func(b []byte) {
		if request, ok := forgetNeighbour(b); ok {
			learned = append(learned, request)
		}
	}
	request := seal(append(newRequest(nil, unix.RTM_GETNEIGH, flagDump), make([]byte, ndmsgLen)...))
	err = c.dump(context.Background(), make([]byte, bufferSize), request, each, func() { learned = nil })
	if err != nil {
		return fmt.Errorf("list neighbours: %w", err)
	}
	for _, request := range learned {
		if err := c.ask(request); err != nil && !errors.Is(err, unix.ENOENT) { // ENOENT: it expired meanwhile
			return fmt.Errorf("delete neighbour: %w", err)
		}
	}
	return nil
}

const ndmsgLen = 12

// forgetNeighbour turns a row of the neighbour table into the request that deletes it. struct ndmsg { __u8 ndm_family,
// pad; __u16 pad; __s32 ndm_ifindex; __u16 ndm_state; __u8 ndm_flags, ndm_type; }, include/uapi/linux/neighbour.h.
func forgetNeighbour(b []byte) (request []byte, ok bool) {
	if len(b) < ndmsgLen || b[0] != unix.AF_INET && b[0] != unix.AF_INET6 {
		return nil, false
	}
	state := binary.NativeEndian.Uint16(b[8:])
	if state&(unix.NUD_PERMANENT|unix.NUD_NOARP) != 0 || b[10]&unix.NTF_EXT_LEARNED != 0 {
		return nil, false
	}
	for attrs := b[ndmsgLen:]; ; {
		kind, value, rest, more := nextAttr(attrs)
		if !more {
			return nil, false
		}
		if kind == unix.NDA_DST {
			head := append(newRequest(nil, unix.RTM_DELNEIGH, flagAck), b[:ndmsgLen]...)
			return seal(appendAttr(head, unix.NDA_DST, value)), true
		}
		attrs = rest
	}
}
