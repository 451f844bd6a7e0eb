package rtnl

import (
	"context"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
)

// RouterEvents are the groups that tell of IPv6 by router advertisements: addresses, an interface's flags, and options such as
// RDNSS, which the kernel has checked and hands on as they are (enum rtnetlink_groups of linux/rtnetlink.h, v6.12:
// RTNLGRP_IPV6_IFADDR 9, RTNLGRP_IPV6_IFINFO 12, RTNLGRP_ND_USEROPT 20).
const RouterEvents = 1<<8 | 1<<11 | 1<<19

// Flags of an interface's IPv6, IFLA_INET6_FLAGS (linux/if_link.h; values of include/net/if_inet6.h, v6.12).
const (
	RouterSeen    = 0x20 // an advertisement has come
	RouterManaged = 0x40 // it says that addresses are had by DHCPv6
	RouterOther   = 0x80 // it says that other things are
)

// Events is a socket that only listens.
type Events struct {
	file *os.File
	stop func() bool
	ctx  context.Context
	buf  [64 << 10]byte
}

// Listen opens a socket for groups; its waits end with ctx.
func Listen(ctx context.Context, groups uint32) (*Events, error) {
	c, err := Dial(groups)
	if err == nil {
		err = unix.SetNonblock(c.fd, true)
	}
	if err != nil {
		return nil, err
	}
	e := &Events{file: os.NewFile(uintptr(c.fd), "rtnetlink"), ctx: ctx}
	e.stop = context.AfterFunc(ctx, func() { _ = e.file.SetReadDeadline(time.Unix(1, 0)) })
	return e, nil
}

// Close closes the socket.
func (e *Events) Close() error {
	e.stop()
	return e.file.Close()
}

// Next waits for something to happen and returns the router's options of link index that came with it, from their type on.
func (e *Events) Next(index int, until time.Time) (options [][]byte, err error) {
	if err := e.file.SetReadDeadline(until); err != nil {
		return nil, err
	}
	if e.ctx.Err() != nil { // its end may have set a deadline before us
		return nil, e.ctx.Err()
	}
	n, err := e.file.Read(e.buf[:])
	if err != nil {
		return nil, fmt.Errorf("rtnetlink: %w", err)
	}
	list, _ := parseMessages(e.buf[:n]) // what is cut off is seen by looking
	for _, m := range list {
		// struct nduseroptmsg: u8 family, u8 pad, u16 length of the options, s32 index, u8 ICMP type and code, 6 bytes padding
		if m.kind == unix.RTM_NEWNDUSEROPT && len(m.body) > 16 && int(int32(native.Uint32(m.body[4:]))) == index {
			options = append(options, append([]byte(nil), m.body[16:16+min(int(native.Uint16(m.body[2:])), len(m.body)-16)]...))
		}
	}
	return options, nil
}
