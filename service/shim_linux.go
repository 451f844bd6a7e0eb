package service

import (
	"errors"
	"io"
	"math"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"rouse/internal/definition"
	"rouse/internal/fmt"
	"rouse/internal/json"
)

// What a child must do to itself between fork and exec, beyond what syscall.SysProcAttr offers, is
// done by this program executed once more under the name shimName: the child sets limits,
// namespaces, capabilities and the seccomp filter up, then executes the service. Services that want none of
// that start without the detour.
const (
	shimName = "rouse-exec"
	shimEnv  = "ROUSE_EXEC"
	// shimReady is written to the status pipe right before exec; what follows is exec's error.
	shimReady = "+"
)

// shimTask is what the shim is to do, in its environment as JSON.
type shimTask struct {
	Path    string   `json:"path"`
	Argv    []string `json:"argv"`
	Dir     string   `json:"dir"`
	UID     uint32   `json:"uid"`
	GID     uint32   `json:"gid"`
	Groups  []uint32 `json:"groups"`
	Confine Confine  `json:"confine"`
	Listen  int      `json:"listen"` // number of descriptors from 3 on
	Status  int      `json:"status"` // descriptor of the status pipe
}

// RunShim must be called at the beginning of main by every program that runs a Manager whose services
// have a Confine or Sockets. In the program itself it returns at once; in a child that was started
// to become such a service it never returns.
func RunShim() {
	if len(os.Args) != 1 || os.Args[0] != shimName {
		return
	}
	var task shimTask
	if err := json.Unmarshal([]byte(os.Getenv(shimEnv)), &task); err != nil {
		os.Exit(NoRestart)
	}
	unix.CloseOnExec(task.Status)
	status := os.NewFile(uintptr(task.Status), "status")
	err := task.become(status)
	fmt.Fprint(status, err)
	os.Exit(NoRestart)
}

// become turns this process into the service. It returns only an error.
func (t *shimTask) become(status io.Writer) error {
	if t.Listen < 0 || t.Path == "" {
		return errors.New("bad task")
	}
	// Capabilities, ids, mounts and filters are those of a thread; exec keeps the caller's.
	runtime.LockOSThread()
	for _, step := range []func() error{t.mounts, t.limits, t.privileges, t.filter, t.chdir} {
		if err := step(); err != nil {
			return err
		}
	}
	// Nothing but what was meant for the service gets into it. Best effort: before Linux 5.11 there is no such
	// flag, and our own descriptors are closed on exec anyway.
	_ = unix.CloseRange(uint(t.Status), math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	env := without(os.Environ(), shimEnv)
	if t.Listen > 0 {
		env = append(env, "LISTEN_PID="+strconv.Itoa(os.Getpid()))
	}
	if _, err := io.WriteString(status, shimReady); err != nil {
		return err
	}
	return syscall.Exec(t.Path, t.Argv, env)
}

func (t *shimTask) chdir() error {
	err := unix.Chdir(t.Dir)
	return about("working directory", t.Dir, err)
}

// mounts gives the thread a mount namespace of its own, that still sees what is mounted outside.
func (t *shimTask) mounts() error {
	c := t.Confine
	if !c.PrivateTmp && len(c.ReadOnly) == 0 {
		return nil
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return about("mount namespace", "", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return about("mount namespace", "", err)
	}
	for _, path := range c.ReadOnly {
		if err := readOnly(path); err != nil {
			return err
		}
	}
	if !c.PrivateTmp {
		return nil
	}
	for _, dir := range []string{"/tmp", "/var/tmp"} {
		err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777")
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return about("private", dir, err)
		}
	}
	return nil
}

// readOnly covers path with itself; only the second mount(2) heeds MS_RDONLY (mount(2), "Remounting").
// What is mounted below stays as it is.
func readOnly(path string) error {
	if err := unix.Mount(path, path, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return about("read-only", path, err)
	}
	err := unix.Mount("", path, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
	return about("read-only", path, err)
}

func (t *shimTask) limits() error {
	c := t.Confine
	for _, r := range c.Rlimits {
		// syscall's Setrlimit, so that Exec does not put back the nofile of before.
		if err := syscall.Setrlimit(definition.Rlimit(r.Name), &syscall.Rlimit{Cur: r.Soft, Max: r.Hard}); err != nil {
			return about("rlimit", r.Name, err)
		}
	}
	if c.OOMScoreAdj != 0 {
		if err := os.WriteFile("/proc/self/oom_score_adj", []byte(strconv.Itoa(c.OOMScoreAdj)), 0); err != nil {
			return about("oom_score_adj", "", err)
		}
	}
	if c.Nice != 0 {
		if err := unix.Setpriority(unix.PRIO_PROCESS, 0, c.Nice); err != nil {
			return about("nice", "", err)
		}
	}
	return nil
}

func (t *shimTask) privileges() error {
	keep := t.Confine.Capabilities
	if keep != nil {
		if err := dropBounding(keep); err != nil {
			return err
		}
		if t.UID != 0 && len(keep) > 0 {
			if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
				return about("keep capabilities", "", err)
			}
		}
	}
	if err := t.setIDs(); err != nil {
		return err
	}
	if keep != nil {
		if err := setCapabilities(keep); err != nil {
			return err
		}
	}
	if t.Confine.NoNewPrivs || t.Confine.Seccomp == "basic" {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return about("no_new_privs", "", err)
		}
	}
	return nil
}

// setIDs changes this thread's ids alone, by raw calls: package syscall would change those of all threads, with
// signals to each, for nothing.
func (t *shimTask) setIDs() error {
	if os.Getuid() != 0 && int(t.UID) == os.Getuid() && int(t.GID) == os.Getgid() {
		return nil
	}
	if err := setgroups(t.Groups); err != nil {
		return about("groups", "", err)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(t.GID), uintptr(t.GID), uintptr(t.GID)); e != 0 {
		return fmt.Errorf("group %d: %w", t.GID, e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(t.UID), uintptr(t.UID), uintptr(t.UID)); e != 0 {
		return fmt.Errorf("user %d: %w", t.UID, e)
	}
	return nil
}

// startTimeout bounds the wait for a shim, which does nothing that takes long.
const startTimeout = 10 * time.Second

// withShim turns cmd into one that goes through the shim. The caller closes both files after the
// start, the second once awaitShim has read it.
func (u *unit) withShim(cmd *Command, files []*os.File, listen int) (status, read *os.File, err error) {
	read, status, err = os.Pipe()
	if err != nil {
		return nil, nil, about("pipe", "", err)
	}
	task := shimTask{
		Path: cmd.Path, Argv: cmd.Args, Dir: cmd.Dir,
		UID: u.who.uid, GID: u.who.gid, Groups: u.who.groups,
		Confine: u.spec.Confine, Listen: listen, Status: 3 + len(files),
	}
	data, err := json.Marshal(task)
	if err != nil {
		return nil, nil, errors.Join(err, read.Close(), status.Close())
	}
	cmd.Path, cmd.Args = "/proc/self/exe", []string{shimName}
	cmd.Env = append(cmd.Env, shimEnv+"="+string(data))
	cmd.Dir = "/"
	cmd.SysProcAttr.Credential = nil
	cmd.ExtraFiles = append(append([]*os.File(nil), files...), status)
	return status, read, nil
}

// awaitShim returns once the service was executed, or why it was not.
func awaitShim(read *os.File) error {
	if err := read.SetReadDeadline(time.Now().Add(startTimeout)); err != nil {
		return err
	}
	said, err := io.ReadAll(io.LimitReader(read, 4096))
	switch {
	case err != nil:
		return about("start: set-up of the process", "", err)
	case string(said) == shimReady:
		return nil
	case len(said) == 0:
		return errors.New("start: the set-up of the process did not run; does main call service.RunShim?")
	case said[0] == shimReady[0]:
		return &shimError{"start: exec: " + string(said[1:])}
	}
	return &shimError{"start: " + string(said)}
}

// shimError is an error that the child met; it would meet it again.
type shimError struct{ text string }

func (e *shimError) Error() string { return e.text }
