package service

import (
	"bytes"
	"context"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
)

// cgroup is one directory of the cgroup v2 tree (Documentation/admin-guide/cgroup-v2.rst). Its path
// never changes; the rest is used by one goroutine at a time.
type cgroup struct {
	_      incomparable
	path   string
	dir    *os.File // for clone3 with CLONE_INTO_CGROUP (Linux 5.7)
	killed bool     // since the directory was made
}

// makeCgroup makes the directory, or takes over one that an earlier run left.
func makeCgroup(path string) (*cgroup, error) {
	if err := unix.Mkdir(path, 0o755); err != nil && err != unix.EEXIST {
		return nil, about("cgroup", path, err)
	}
	dir, err := os.OpenFile(path, unix.O_DIRECTORY|unix.O_RDONLY, 0)
	if err != nil {
		return nil, about("cgroup", path, err)
	}
	return &cgroup{path: path, dir: dir}, nil
}

// checkCgroup2 tells a cgroup v2 directory from one of v1 and from none, before anything is made.
func checkCgroup2(path string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return about("cgroup", path, err)
	}
	if int64(st.Type) != unix.CGROUP2_SUPER_MAGIC {
		return fmt.Errorf("cgroup %s: not a cgroup v2 file system (mount -t cgroup2)", path)
	}
	return nil
}

// fd is for SysProcAttr.CgroupFD.
func (c *cgroup) fd() int { return int(c.dir.Fd()) }

func (c *cgroup) close() { c.dir.Close() }

// checkThawed refuses a cgroup that somebody has frozen: a child would stop before its exec, and with it the thread that
// waits for that, which on a single processor is all of PID 1. Our own freezing is done to the parent of all.
func (c *cgroup) checkThawed() error {
	const knob = "/cgroup.freeze"
	if state, err := readKernel(c.path + knob); err == nil && len(state) > 0 && state[0] == '1' {
		return fmt.Errorf("cgroup %s was frozen by somebody else: nothing can start in it (echo 0 > %s)", c.path, c.path+knob)
	}
	return nil
}

// remove deletes the directory and those below it; it fails while a process is inside.
func (c *cgroup) remove() error {
	if c == nil { // never made
		return nil
	}
	c.close()
	return removeTree(c.path)
}

func removeTree(path string) error {
	for _, sub := range subgroups(path) {
		if err := removeTree(sub); err != nil {
			return err
		}
	}
	err := unix.Rmdir(path)
	if err == unix.ENOENT {
		return nil
	}
	return about("remove cgroup", path, err)
}

func subgroups(path string) []string {
	// A directory of kernfs has a link for each below it (fs/kernfs/inode.c, kernfs_refresh_inode), so most are
	// done with one stat.
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || st.Nlink <= 2 {
		return nil
	}
	var dirs []string
	for _, name := range entries(path) {
		sub := path + "/" + name
		if unix.Stat(sub, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			dirs = append(dirs, sub)
		}
	}
	return dirs
}

// eachID calls do for every number in file ("cgroup.procs" or "cgroup.threads") of path and of all
// cgroups below it. A cgroup that vanishes while we walk has no processes, so that is no error.
func eachID(path, file string, do func(id int)) {
	eachLine(path+"/"+file, func(line string) {
		// 0 stands for a process outside of our pid namespace.
		if id, _ := strconv.Atoi(line); id > 0 {
			do(id)
		}
	})
	for _, sub := range subgroups(path) {
		eachID(sub, file, do)
	}
}

// eachLine calls do for each line of a kernel's file; for none if it cannot be read.
func eachLine(path string, do func(line string)) {
	data, _ := readKernel(path)
	for text := string(data); text != ""; {
		var line string
		line, text, _ = strings.Cut(text, "\n")
		do(line)
	}
}

// renew replaces a directory in which kill was used. Each write to cgroup.kill changes the
// cgroup's kill_seq, and a child that clone3 puts into a cgroup whose kill_seq is not that of its
// parent's cgroup is killed at birth (kernel/cgroup/cgroup.c, cgroup_css_set_fork takes the
// parent's, cgroup_post_fork compares; seen on Linux 6.18): a killed cgroup cannot be used again.
func (c *cgroup) renew() error {
	if !c.killed {
		return nil
	}
	if err := removeTree(c.path); err != nil {
		return err
	}
	fresh, err := makeCgroup(c.path)
	if err != nil {
		return err
	}
	c.close()
	c.dir, c.killed = fresh.dir, false
	return nil
}

// readKernel reads a file of procfs or cgroupfs. os.ReadFile makes twice as many system calls, for it
// asks for the size and offers the file to the poller.
func readKernel(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	all := make([]byte, 0, 2048)
	for {
		n, rerr := unix.Read(fd, all[len(all):cap(all)])
		if n > 0 {
			all = grow(all[:len(all)+n])
		} else if rerr != unix.EINTR {
			unix.Close(fd)
			return all, rerr
		}
	}
}

// grow makes room behind p.
func grow(p []byte) []byte {
	if len(p) < cap(p) {
		return p
	}
	return append(make([]byte, 0, 2*cap(p)), p...)
}

// kill ends every process below c at once, frozen ones too.
func (c *cgroup) kill() error {
	c.killed = true
	err := writeKernel(c.path+"/cgroup.kill", "1")
	if err == unix.ENOENT {
		return c.killEach()
	}
	return about("kill cgroup", c.path, err)
}

// writeKernel writes a file of procfs or cgroupfs. The error is the kernel's number alone.
func writeKernel(path, value string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	_, err = unix.Write(fd, []byte(value))
	unix.Close(fd)
	return err
}

// killEach is for kernels before 5.14, which have no cgroup.kill. Frozen processes cannot fork away from us, and
// SIGKILL ends them although they are frozen; those that forked while the freeze came are found by looking again.
func (c *cgroup) killEach() error {
	freeze := c.path + "/cgroup.freeze"
	if err := writeKernel(freeze, "1"); err != nil {
		return about("kill cgroup", c.path, err)
	}
	for range 100 {
		n := 0
		eachID(c.path, "cgroup.procs", func(pid int) {
			n++
			_ = unix.Kill(pid, unix.SIGKILL)
		})
		if n == 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	return about("kill cgroup", c.path, writeKernel(freeze, "0"))
}

// populated tells whether any process is left below c, zombies not counted.
func (c *cgroup) populated() (bool, error) {
	data, err := readKernel(c.path + "/cgroup.events")
	return eventOn(data, "populated"), about("cgroup events", c.path, err)
}

// waitEmpty waits until no process is left below c.
func (c *cgroup) waitEmpty(ctx context.Context) error {
	e, err := openEvents(c.path)
	if err != nil {
		return err
	}
	defer e.close()
	return e.wait(ctx, "populated", false)
}

// reap kills whatever is still in c, waits until it is gone, and makes c fit for the next start.
func (c *cgroup) reap(ctx context.Context) error {
	busy, err := c.populated()
	if err == nil && busy {
		err = c.kill()
	}
	if err == nil && c.killed {
		err = c.waitEmpty(ctx)
	}
	if err != nil {
		return err
	}
	return c.renew()
}

// events is an open cgroup.events file, which poll(2) reports as POLLPRI when a value changed.
type events struct{ f *os.File }

func openEvents(path string) (*events, error) {
	f, err := os.Open(path + "/cgroup.events")
	if err != nil {
		return nil, about("cgroup events", "", err)
	}
	return &events{f: f}, nil
}

func (e *events) close() { e.f.Close() }

// is reads the state of key anew.
func (e *events) is(key string) (bool, error) {
	var buf [128]byte
	n, err := unix.Pread(int(e.f.Fd()), buf[:], 0)
	if err != nil {
		return false, about("read", e.f.Name(), err)
	}
	return eventOn(buf[:n], key), nil
}

// How long poll(2) may sleep before the file is read again. The kernel tells of changes at most every 10 ms
// (kernel/cgroup/cgroup.c, CGROUP_FILE_NOTIFY_MIN_INTV), so that a freeze right after a thaw would
// wait that long for news of what took 50 microseconds. Looking again soon costs a read.
const (
	pollFirst = 20 * time.Microsecond
	pollLast  = 50 * time.Millisecond
)

// wait returns when key has the value want. kernfs compares its event counter with that of the
// last read (fs/kernfs/file.c, kernfs_generic_poll), so reading before polling misses nothing.
func (e *events) wait(ctx context.Context, key string, want bool) error {
	for slice := pollFirst; ; slice = min(2*slice, pollLast) {
		on, err := e.is(key)
		if err != nil || on == want {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if deadline, ok := ctx.Deadline(); ok {
			slice = min(slice, max(time.Until(deadline), pollFirst))
		}
		fds := [1]unix.PollFd{{Fd: int32(e.f.Fd()), Events: unix.POLLPRI}}
		limit := unix.NsecToTimespec(slice.Nanoseconds())
		if _, err := unix.Ppoll(fds[:], &limit, nil); err != nil && err != unix.EINTR {
			return about("poll", e.f.Name(), err)
		}
	}
}

// eventOn finds "key 1" in the flat keyed format of cgroup.events, without allocating.
func eventOn(data []byte, key string) bool {
	for len(data) > len(key)+1 {
		end := bytes.IndexByte(data, '\n')
		line := data
		if end >= 0 {
			line, data = data[:end], data[end+1:]
		} else {
			data = nil
		}
		if len(line) == len(key)+2 && string(line[:len(key)]) == key && line[len(key)] == ' ' {
			return line[len(key)+1] == '1'
		}
	}
	return false
}
