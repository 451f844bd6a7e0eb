package firewall

import (
	"errors"
	"runtime"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
	"rouse/internal/guard"
)

// inThrowaway runs f in a network namespace of its own, which ends with the
// thread it ran on. Links, tables and rules that f leaves end with it.
func inThrowaway(f func() error) error {
	done := make(chan error, 1)
	go guard.Do(func() {
		// Never unlocked: the thread is not fit for other goroutines, so it
		// ends with this one.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- probeError(err)
			return
		}
		done <- f()
	})
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
	defer func() { go guard.Do(func() { n.Close() }) }()
	return n.variants, try(n, Shut, Hold)
}
