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
// the gate with what works.
func openNft(o Options) (mechanism, error) {
	var caps capabilities
	err := inThrowaway(func() error {
		if err := tryNft(capabilities{}, o.Allow); err != nil {
			return &UnsupportedError{"nf_tables inet tables", "CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET", err}
		}
		caps.arp = tryNft(capabilities{arp: true}, o.Allow) == nil
		caps.bridge = tryNft(capabilities{bridge: true}, o.Allow) == nil
		caps.conntrack = tryNft(capabilities{conntrack: true}, o.Allow) == nil
		return nil
	})
	if err != nil {
		return nil, err
	}
	return newNft(caps, o.Allow)
}

func tryNft(caps capabilities, allow []Allow) error {
	n, err := newNft(caps, allow)
	if err != nil {
		return err
	}
	defer n.Close()
	return try(n, Shut, Hold)
}
