package main

import (
	"errors"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"rouse/control"
	"rouse/internal/fmt"
)

// ctlExec becomes a command that runs as a service does. PID 1 has no part in it: this process joins the cgroup
// of the service's main process, so that the command is stopped, frozen and limited with it, takes on its
// environment, mounts, folder, groups, user, and right to gain no more privileges, and execs. A seccomp profile
// cannot be copied and is not.
func ctlExec(args []string, _ io.Writer) error {
	if len(args) > 0 && strings.HasPrefix(args[0], "-") {
		if _, err := parse(newFlags("exec"), args[:1]); err != nil {
			return err
		}
		args = args[1:]
	}
	if len(args) > 1 && args[1] == "--" {
		args = append(args[:1:1], args[2:]...)
	}
	if len(args) < 2 {
		return only(args, 2, 2, "exec SERVICE [--] COMMAND [ARGUMENT...]")
	}
	pid, err := servicePID(args[0])
	if err == nil {
		err = execAs("/proc/"+strconv.Itoa(pid), args[1:])
	}
	return fmt.Errorf("exec in %s: %w", args[0], err)
}

// servicePID is the main process of a service that runs, in a guest that does.
func servicePID(name string) (int, error) {
	var s control.Status
	if err := ask(askTimeout, "rouse-status", nil, &s); err != nil {
		return 0, err
	}
	if s.State != "running" && s.State != "booting" {
		return 0, errors.New("the guest is " + s.State + ": its services are frozen or about to be")
	}
	var list []struct {
		Name, State string
		PID         int
	}
	if err := ask(askTimeout, "rouse-services", nil, &list); err != nil {
		return 0, err
	}
	for _, s := range list {
		switch {
		case s.Name == name && s.PID == 0:
			return 0, errors.New("it does not run: it is " + s.State)
		case s.Name == name:
			return s.PID, nil
		}
	}
	return 0, errors.New("no such service")
}

// model is what a process is to be like: that of which the folder in /proc was read (proc(5)).
type model struct {
	cgroup, cwd string
	env         []string
	groups      []uint32
	uid, gid    uintptr
	bounding    uint64 // capabilities that it could ever have
	noNewPrivs  bool
}

func readModel(proc string) (m model, err error) {
	var text []byte
	if text, err = os.ReadFile(proc + "/cgroup"); err != nil {
		return m, err
	}
	_, path, _ := strings.Cut(string(text), "0::") // the line of cgroup v2
	path, _, _ = strings.Cut(path, "\n")
	m.cgroup = cgroupRoot + path
	if text, err = os.ReadFile(proc + "/environ"); err != nil {
		return m, err
	}
	m.env = strings.Split(strings.TrimRight(string(text), "\x00"), "\x00")
	if text, err = os.ReadFile(proc + "/status"); err != nil {
		return m, err
	}
	for _, line := range strings.Split(string(text), "\n") {
		if fields := strings.Fields(line); len(fields) > 1 {
			m.status(fields)
		}
	}
	m.cwd, err = os.Readlink(proc + "/cwd")
	return m, err
}

// status takes a line of the file; of four ids the second is the effective one.
func (m *model) status(line []string) {
	base := 10
	if line[0] == "CapBnd:" {
		base = 16
	}
	var n uint64
	for i, word := range line[1:] {
		n, _ = strconv.ParseUint(word, base, 64)
		switch line[0] {
		case "Uid:":
			if i == 1 {
				m.uid = uintptr(n)
			}
		case "Gid:":
			if i == 1 {
				m.gid = uintptr(n)
			}
		case "Groups:":
			m.groups = append(m.groups, uint32(n))
		case "CapBnd:":
			m.bounding = n
		case "NoNewPrivs:":
			m.noNewPrivs = n == 1
		}
	}
}

// execAs returns only if it fails, and then this process is of no more use.
func execAs(proc string, command []string) error {
	m, err := readModel(proc)
	if err != nil {
		return err
	}
	if err := os.WriteFile(m.cgroup+"/cgroup.procs", []byte("0"), 0); err != nil {
		return err
	}
	runtime.LockOSThread() // what follows is one thread's, which execs
	if err := joinMounts(proc); err != nil {
		return err
	}
	if err := unix.Chdir(m.cwd); err != nil {
		return err
	}
	if err := m.become(); err != nil {
		return err
	}
	path, err := look(command[0], m.env)
	if err != nil {
		return err
	}
	return os.NewSyscallError("exec "+path, syscall.Exec(path, command, m.env))
}

// joinMounts enters the mount namespace of a process, if it has one of its own.
func joinMounts(proc string) error {
	theirs, err := os.Readlink(proc + "/ns/mnt")
	if err != nil {
		return err
	}
	if ours, err := os.Readlink("/proc/self/ns/mnt"); err != nil || ours == theirs {
		return err
	}
	fd, err := unix.Open(proc+"/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// A thread that shares its root with others may not (setns(2)).
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	return unix.Setns(fd, unix.CLONE_NEWNS)
}

// become gives this thread, which is to exec, the rights of the model, by bare system calls: those of package syscall
// change all threads.
func (m *model) become() error {
	for c := uintptr(0); c < 64; c++ {
		if m.bounding&(1<<c) == 0 {
			// EINVAL is a capability that this kernel does not know.
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && err != unix.EINVAL {
				return err
			}
		}
	}
	if m.noNewPrivs {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return err
		}
	}
	groups := uintptr(unsafe.Pointer(unsafe.SliceData(m.groups)))
	for _, call := range [...][3]uintptr{{unix.SYS_SETGROUPS, uintptr(len(m.groups)), groups}, {unix.SYS_SETGID, m.gid}, {unix.SYS_SETUID, m.uid}} {
		if _, _, errno := unix.Syscall(call[0], call[1], call[2], 0); errno != 0 {
			return errno
		}
	}
	return nil
}

// look finds a command in the PATH of an environment.
func look(name string, env []string) (string, error) {
	path := "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, v := range env {
		if strings.HasPrefix(v, "PATH=") {
			path = v
		}
	}
	if strings.Contains(name, "/") {
		return name, nil
	}
	for _, dir := range strings.Split(path[len("PATH="):], ":") {
		if info, err := os.Stat(dir + "/" + name); err == nil && info.Mode()&0o111 != 0 && !info.IsDir() {
			return dir + "/" + name, nil
		}
	}
	return "", errors.New(name + ": not found in " + path)
}
