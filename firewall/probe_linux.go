package firewall

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// inThrowaway runs f in a network namespace of its own, which ends with the
// thread it ran on. Links, tables and rules that f leaves end with it.
func inThrowaway(f func() error) error {
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread is not fit for other goroutines, so it
		// ends with this one.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- probeError(err)
			return
		}
		done <- f()
	}()
	return <-done
}

func probeError(err error) error {
	if errors.Is(err, unix.EINVAL) {
		return &UnsupportedError{"network namespaces", "CONFIG_NET_NS", err}
	}
	return fmt.Errorf("unshare network namespace: %w", err)
}

// try sets a mechanism to each state, reads it back and opens it again.
func try(m mechanism, states ...State) error {
	for _, s := range append(states, Open) {
		if err := m.set(s); err != nil {
			return err
		}
		got, err := m.state()
		if err != nil {
			return describe(err, "read back")
		}
		if got != s {
			return fmt.Errorf("set %v, read back %v", s, got)
		}
	}
	return nil
}

// openNft finds out what nf_tables can do here by doing all of it, then makes
// the gate with what works. What it compiled and learnt while probing goes with
// it.
func openNft(o Options) (mechanism, error) {
	caps := capabilities{arp: true, bridge: true, conntrack: true}
	var learnt []variant
	err := inThrowaway(func() (err error) {
		if learnt, err = tryNft(caps, o.Allow); err == nil {
			return nil
		}
		caps = capabilities{}
		if learnt, err = tryNft(caps, o.Allow); err != nil {
			return &UnsupportedError{"nf_tables inet tables", "CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET", err}
		}
		for _, has := range []*bool{&caps.arp, &caps.bridge, &caps.conntrack} {
			*has = true
			if more, err := tryNft(caps, o.Allow); err == nil {
				learnt = more
			} else {
				*has = false
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	n, err := newNft(caps, o.Allow)
	if err != nil {
		return nil, err
	}
	n.variants = learnt
	return n, nil
}

// tryNft closes its sockets in the background: that takes a grace period of
// RCU, 20 ms and more on a busy machine, for which a boot need not wait.
func tryNft(caps capabilities, allow []Allow) ([]variant, error) {
	n, err := newNft(caps, allow)
	if err != nil {
		return nil, err
	}
	defer func() { go n.Close() }()
	return n.variants, try(n, Shut, Hold)
}

// addProbeLink makes a link for filters and rules to be tried on: loopback is
// none of theirs. A bridge without ports will do where dummies are not built
// in; a tun device is the last resort.
func addProbeLink() error {
	sock, err := openNetlink(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer sock.Close()
	for _, kind := range []string{"dummy", "bridge", "veth", "ifb"} {
		e := &encoder{}
		seq := sock.nextSeq()
		flags := uint16(unix.NLM_F_REQUEST | unix.NLM_F_ACK | unix.NLM_F_CREATE | unix.NLM_F_EXCL)
		e.message(unix.RTM_NEWLINK, flags, seq, make([]byte, unix.SizeofIfInfomsg))
		e.str(unix.IFLA_IFNAME, "probe0")
		e.nest(unix.IFLA_LINKINFO, func() { e.str(unix.IFLA_INFO_KIND, kind) })
		if err = sock.transact(e.finish(), seq); err == nil {
			return nil
		}
	}
	return addTun()
}

// addTun makes a link that outlives its descriptor and ends with the namespace.
func addTun() error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("probe0")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return err
	}
	return unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1)
}
