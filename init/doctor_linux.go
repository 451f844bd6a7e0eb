package main

import (
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"rouse/doctor"
	"rouse/rootfs"
)

// Doctor tells what this kernel offers, by what PID 1 has opened and tried.
func (h hostView) Doctor() any {
	release, _ := rootfs.Release() // its lack is no finding
	r := doctor.Judge(release, doctor.Probe(h.g.facts(release)))
	r.Problems = h.g.problems.all()
	return r
}

// facts are the names that the table of package doctor asks for.
func (g *guest) facts(release string) []string {
	facts := append(g.sources.Names(), g.deviceMode, "disconnect") // by pidfd_getfd, older than any kernel that rouse runs on
	add := func(fact string, is bool) {
		if is {
			facts = append(facts, fact)
		}
	}
	add("prompt", g.sources.Prompt())
	add("reseed", g.pool != nil)
	if g.gate != nil {
		facts = append(facts, strings.Split(g.gate.Mechanism(), "+")...)
		c := g.gate.Coverage()
		add("arp", c.ARP)
		add("packetsockets", c.PacketSockets)
		add("hold", c.HoldTCP != "")
	}
	queues := g.queues.Sources()
	facts = append(facts, queues...)
	add("destroy", slices.Contains(queues, "tcp: sock_diag") && destroys())
	add("ctnetlink", ctnetlink())
	_, err := os.Stat("/proc/sys/net/netfilter/nf_conntrack_max")
	add("untracked", err != nil)
	_, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, 0, 0, 0) // MEMBARRIER_CMD_QUERY
	add("membarrier", errno == 0)
	index, _ := os.ReadFile("/lib/modules/" + release + "/modules.dep")
	for _, name := range [...]string{"overlay", "squashfs", "ext4"} {
		add("module:"+name, strings.Contains(string(index), "/"+name+".ko"))
	}
	return facts
}

// destroys asks to destroy a TCP socket that there is not: without CONFIG_INET_DIAG_DESTROY the answer is
// EOPNOTSUPP (inet_diag_cmd_exact, net/ipv4/inet_diag.c, Linux 6.12), and ENOENT is a kernel that looked for it, or one
// without tcp_diag.
func destroys() bool {
	// struct inet_diag_req_v2: family, protocol, ..., then struct inet_diag_sockid.
	var body [56]byte
	body[0], body[1] = unix.AF_INET, unix.IPPROTO_TCP
	const sockDestroy = 21 // SOCK_DESTROY, include/uapi/linux/sock_diag.h
	return errors.Is(refusal(unix.NETLINK_SOCK_DIAG, sockDestroy, body[:]), unix.ENOENT)
}

// ctnetlink asks for the statistics of conntrack: EINVAL is a kernel without CONFIG_NF_CT_NETLINK.
func ctnetlink() bool {
	const getStats = 1<<8 | 5 // NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET_STATS
	return refusal(unix.NETLINK_NETFILTER, getStats, make([]byte, 4)) == nil
}

// refusal sends one message to a netlink family and returns the error that it answers with.
func refusal(family int, kind uint16, body []byte) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, family)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// struct nlmsghdr: length (u32), type, flags (u16 each), sequence, port (u32 each).
	msg := make([]byte, 16, 16+len(body))
	binary.NativeEndian.PutUint32(msg, uint32(16+len(body)))
	binary.NativeEndian.PutUint16(msg[4:], kind)
	binary.NativeEndian.PutUint16(msg[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	if _, err := unix.Write(fd, append(msg, body...)); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, err := unix.Read(fd, answer)
	if err != nil || n < 20 || binary.NativeEndian.Uint16(answer[4:]) != unix.NLMSG_ERROR {
		return err
	}
	if code := int32(binary.NativeEndian.Uint32(answer[16:])); code != 0 {
		return unix.Errno(-code)
	}
	return nil
}
