// Package roster knows which clones run on this host: a folder with one folder for each, which is the
// clone's run folder too.
//
// A clone is entered before it runs and struck when it has ended. An entry can be left behind by a process
// that was killed, and its process id may be another process's by now; so an entry holds the start time of the
// processes that it names, and every look strikes what is left behind: clones whose command has been killed, as
// QEMU dies with it. A clone that was detached stays on the roster when it has ended, with its console,
// until it is removed. Signals go through a pidfd that was opened before the start time was compared, so
// that they reach that process or none.
package roster

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Names in a clone's folder.
const (
	entryFile   = "clone.json"
	ConsoleFile = "console.log" // of the guest
)

// States of a clone.
const (
	Starting = "starting"
	Ready    = "ready"
	Exited   = "exited" // told by List: the process is gone
)

// Process is a process that is not mistaken for another one with its id.
type Process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks since boot, /proc/PID/stat
}

// Entry is a clone.
type Entry struct {
	Name       string    `json:"name"`
	Snapshot   string    `json:"snapshot"`
	Began      time.Time `json:"began"`
	State      string    `json:"state"`
	VMGenID    string    `json:"vmgenid,omitempty"`
	Generation uint32    `json:"generation,omitempty"`
	Ports      []Port    `json:"ports,omitempty"`
	QEMU       Process   `json:"qemu"`
	Owner      Process   `json:"owner"` // the command that started it
	Detached   bool      `json:"detached"`
}

// Port leads into a clone.
type Port struct {
	Host  string `json:"host"` // address and port
	Guest uint16 `json:"guest"`
}

// Roster is a folder of clones.
type Roster struct{ dir string }

// Open uses the folder given, or $XDG_RUNTIME_DIR/rouse, or for root /run/rouse-host.
func Open(dir string) (*Roster, error) {
	if dir == "" {
		dir = defaultDir(os.Getenv("XDG_RUNTIME_DIR"), os.Getuid())
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("run folder: %w; set XDG_RUNTIME_DIR to a folder of yours", err)
	}
	// Below a folder that all may write to, somebody else may have been first.
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return nil, fmt.Errorf("run folder %s: %w", dir, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Getuid() || st.Mode&0o022 != 0 {
		return nil, fmt.Errorf("run folder %s: it is not yours alone to write; set XDG_RUNTIME_DIR to a folder of yours", dir)
	}
	return &Roster{dir}, nil
}

func defaultDir(runtime string, uid int) string {
	switch {
	case runtime != "":
		return filepath.Join(runtime, "rouse")
	case uid == 0:
		return "/run/rouse-host"
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("rouse-%d", uid))
}

// validName keeps names inside the folder and apart from its hidden files.
var validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// Reserve enters a clone under its name, which must be free, or under the first free one of NAME-0, NAME-1
// and so on if it is not numbered by the caller.
func (r *Roster) Reserve(name string, numbered bool, e Entry) (Entry, error) {
	if !validName.MatchString(name) {
		return e, fmt.Errorf("clone name %q: want letters, digits, dots, dashes, underscores, at most 64", name)
	}
	for i := 0; ; i++ {
		e.Name = name
		if !numbered {
			e.Name = fmt.Sprintf("%s-%d", name, i)
		}
		err := os.Mkdir(r.Folder(e.Name), 0o700)
		if errors.Is(err, os.ErrExist) && !numbered {
			continue
		}
		if errors.Is(err, os.ErrExist) {
			return e, fmt.Errorf("clone %s: the name is taken; rouse ps shows by whom, rouse rm frees it", e.Name)
		}
		if err != nil {
			return e, err
		}
		if e.Owner, err = self(); err != nil {
			return e, err
		}
		e.State, e.Began = Starting, time.Now()
		return e, r.Update(e)
	}
}

// Folder is a clone's run folder.
func (r *Roster) Folder(name string) string { return filepath.Join(r.dir, name) }

// Update writes an entry, complete or not at all.
func (r *Roster) Update(e Entry) error {
	text, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(r.Folder(e.Name), entryFile)
	if err := os.WriteFile(path+".new", append(text, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// Strike removes an entry and the clone's folder.
func (r *Roster) Strike(name string) error {
	if !validName.MatchString(name) {
		return fmt.Errorf("clone name %q: there is none such", name)
	}
	return os.RemoveAll(r.Folder(name))
}

// List gives the clones by name, and strikes what was left behind.
func (r *Roster) List() ([]Entry, error) {
	folders, err := os.ReadDir(r.dir)
	if err != nil {
		return nil, err
	}
	var list []Entry
	for _, f := range folders {
		if !validName.MatchString(f.Name()) || !f.IsDir() {
			continue
		}
		e, err := r.read(f.Name())
		if err != nil || e.leftBehind() {
			if err == nil || r.old(f.Name()) {
				_ = e.QEMU.Signal(unix.SIGKILL)
				_ = r.Strike(f.Name())
			}
			continue
		}
		list = append(list, e)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
	return list, nil
}

// old says that a folder without an entry is not just being made.
func (r *Roster) old(name string) bool {
	info, err := os.Stat(r.Folder(name))
	return err == nil && time.Since(info.ModTime()) > time.Minute
}

// Find gives one clone.
func (r *Roster) Find(name string) (Entry, error) {
	list, err := r.List()
	if err != nil {
		return Entry{}, err
	}
	var names []string
	for _, e := range list {
		if e.Name == name {
			return e, nil
		}
		names = append(names, e.Name)
	}
	if len(names) == 0 {
		return Entry{}, fmt.Errorf("no clone %s: none is running", name)
	}
	return Entry{}, fmt.Errorf("no clone %s; there are %s", name, strings.Join(names, ", "))
}

func (r *Roster) read(name string) (Entry, error) {
	text, err := os.ReadFile(filepath.Join(r.Folder(name), entryFile))
	if err != nil {
		return Entry{}, err
	}
	var e Entry
	if err := json.Unmarshal(text, &e); err != nil {
		return e, fmt.Errorf("clone %s: %w", name, err)
	}
	e.Name = name
	if e.State == Ready && !e.QEMU.Alive() {
		e.State = Exited
	}
	return e, nil
}

// leftBehind is a clone whose command was killed: a detached one is its own once it is ready.
func (e Entry) leftBehind() bool {
	if e.Detached && e.State != Starting {
		return false
	}
	return !e.Owner.Alive()
}

func self() (Process, error) { return Identify(os.Getpid()) }

// Identify gives a living process its start time.
func Identify(pid int) (Process, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Process{}, err
	}
	start, err := startTime(string(text))
	return Process{pid, start}, err
}

// startTime is field 22 of /proc/PID/stat (proc(5)); the second one, the command, may hold anything, also
// parentheses.
func startTime(stat string) (uint64, error) {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	const at = 22 - 3 // the first of fields is the third
	if len(fields) <= at || fields[0] == "Z" || fields[0] == "X" {
		return 0, errors.New("no such process")
	}
	return strconv.ParseUint(fields[at], 10, 64)
}

// Alive says that this very process still runs.
func (p Process) Alive() bool {
	now, err := Identify(p.PID)
	return err == nil && p.PID > 0 && now == p
}

// Signal reaches this very process or none.
func (p Process) Signal(s unix.Signal) error {
	if p.PID <= 1 {
		return unix.ESRCH
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	defer unix.Close(fd)
	if !p.Alive() {
		return unix.ESRCH
	}
	return os.NewSyscallError("pidfd_send_signal", unix.PidfdSendSignal(fd, s, nil, 0))
}

// Await waits until the process has ended, at most so long, and says whether it has.
func (p Process) Await(limit time.Duration) bool {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return !p.Alive()
	}
	defer unix.Close(fd)
	if !p.Alive() {
		return true
	}
	deadline := time.Now().Add(limit)
	for {
		left := time.Until(deadline)
		// A pidfd is readable when its process has ended.
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, max(0, int(left.Milliseconds())))
		if n > 0 || !errors.Is(err, unix.EINTR) {
			return n > 0
		}
	}
}
