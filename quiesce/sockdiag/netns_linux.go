package sockdiag

import (
	"bytes"
	"errors"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
	"rouse/internal/guard"
)

// refresh opens the network namespaces that have appeared and closes those that nobody is in any more: our sockets
// would keep them alive.
func (ins *Inspector) refresh() error {
	if len(ins.spaces) == 0 {
		return os.ErrClosed
	}
	if !ins.options.AllNamespaces {
		return nil
	}
	there, err := namespaces()
	if err != nil {
		return fmt.Errorf("list network namespaces: %w", err)
	}
	delete(there, ins.home)
	kept := ins.spaces[:1]
	for _, ns := range ins.spaces[1:] {
		if _, ok := there[ns.inode]; !ok {
			if err := ns.close(); err != nil {
				return err
			}
			continue
		}
		delete(there, ns.inode)
		kept = append(kept, ns)
	}
	ins.spaces = kept
	for inode, path := range there {
		ns, err := ins.enter(inode, path)
		if gone(err) { // its last process ended between the list and now
			continue
		}
		if err != nil {
			return fmt.Errorf("network namespace %d: %w", inode, err)
		}
		ins.spaces = append(ins.spaces, ns)
	}
	return nil
}

// namespaces maps the inode of every network namespace that can be named to a path that leads to it: those of processes (of
// their first threads) and those mounted, as `ip netns add` does. One held by nothing but a descriptor is not found.
func namespaces() (map[uint64]string, error) {
	pids, err := processes()
	if err != nil {
		return nil, err
	}
	there := make(map[uint64]string)
	var target [64]byte
	for _, pid := range pids {
		path := "/proc/" + strconv.Itoa(pid) + "/ns/net"
		n, err := unix.Readlink(path, target[:])
		if err != nil {
			continue // gone, or a zombie
		}
		if inode, ok := parseLink(target[:n], "net:["); ok && there[inode] == "" {
			there[inode] = path
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	eachMountedNamespace(mounts, func(inode uint64, path string) {
		if there[inode] == "" {
			there[inode] = path
		}
	})
	return there, nil
}

// eachMountedNamespace finds lines of proc(5)'s mountinfo such as
//
//	123 45 0:4 net:[4026532000] /run/netns/blue rw shared:7 - nsfs nsfs rw
func eachMountedNamespace(mounts []byte, f func(inode uint64, path string)) {
	eachLine(mounts, func(line []byte) {
		words := fields{line}
		words.skip(3)
		if inode, ok := parseLink(words.next(), "net:["); ok && bytes.Contains(line, []byte(" - nsfs ")) {
			f(inode, unescape(words.next()))
		}
	})
}

// unescape undoes the octal escapes of mountinfo (blank, tab, newline, backslash).
func unescape(b []byte) string {
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		if b[i] == '\\' && i+3 < len(b) {
			if n, ok := number(b[i+1:i+4], 8); ok && n < 256 {
				out = append(out, byte(n))
				i += 3
				continue
			}
		}
		out = append(out, b[i])
	}
	return string(out)
}

// enter opens a namespace at a path, if it still is the one of that inode.
func (ins *Inspector) enter(inode uint64, path string) (ns *namespace, err error) {
	handle, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if is, err := inodeOf(handle); err != nil || is != inode {
		return nil, errors.Join(unix.ENOENT, err, unix.Close(handle))
	}
	err = within(handle, func() (err error) {
		ns, err = openNamespace(inode, ins.spaces[0].sources, nil, ins.buf)
		return err
	})
	if err != nil {
		return nil, errors.Join(err, unix.Close(handle))
	}
	ns.handle = handle
	return ns, nil
}

// within runs f on a thread that is in another network namespace. A thread that cannot go back is not given back: it
// ends with its goroutine.
func within(handle int, f func() error) error {
	result := make(chan error)
	go guard.Do(func() {
		runtime.LockOSThread()
		home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			runtime.UnlockOSThread()
			result <- err
			return
		}
		defer unix.Close(home)
		if err := unix.Setns(handle, unix.CLONE_NEWNET); err != nil {
			runtime.UnlockOSThread()
			result <- fmt.Errorf("setns: %w", err)
			return
		}
		err = f()
		if back := unix.Setns(home, unix.CLONE_NEWNET); back == nil {
			runtime.UnlockOSThread()
		}
		result <- err
	})
	return <-result
}

// Flush is FlushAll with what is not supported among its errors.
func (ins *Inspector) Flush() error {
	unsupported, err := ins.FlushAll()
	return errors.Join(err, unsupported)
}

// FlushAll forgets tracked connections and learned neighbours in all the namespaces that the Inspector looks at, as
// FlushConntrack and FlushNeighbours do in one. That a kernel cannot forget its tracked connections is told apart from
// failures: it matches ErrUnsupported, endangers nothing, and is worth a warning.
func (ins *Inspector) FlushAll() (unsupported, err error) {
	ins.mu.Lock()
	defer ins.mu.Unlock()
	if err := ins.refresh(); err != nil {
		return nil, fmt.Errorf("sockdiag: %w", err)
	}
	both := func() error {
		tracked := FlushConntrack()
		if errors.Is(tracked, ErrUnsupported) {
			unsupported, tracked = tracked, nil // of every namespace the same: it is the kernel's
		}
		return errors.Join(tracked, FlushNeighbours())
	}
	err = both()
	for _, ns := range ins.spaces[1:] {
		if here := within(ns.handle, both); here != nil {
			err = errors.Join(err, fmt.Errorf("network namespace %d: %w", ns.inode, here))
		}
	}
	return unsupported, err
}
