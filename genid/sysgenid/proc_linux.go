package sysgenid

import (
	"bytes"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Capabilities that TRIGGER_GEN_UPDATE asks for, by their bits
// (include/uapi/linux/capability.h).
const (
	capSysAdmin          = 21
	capCheckpointRestore = 40
)

// field returns the value of a line "name:\tvalue" of /proc/PID/status.
func field(status []byte, name string) string {
	for line := range bytes.Lines(status) {
		if rest, ok := bytes.CutPrefix(line, []byte(name+":")); ok {
			return string(bytes.TrimSpace(rest))
		}
	}
	return ""
}

// mayTrigger asks for the thread's effective capabilities, by capget(2): a
// tenth of the time that its status in procfs takes.
func mayTrigger(thread uint32) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3, Pid: int32(thread)}
	var data [2]unix.CapUserData // 32 capabilities each
	return unix.Capget(&header, &data[0]) == nil && sufficient(data[0].Effective, data[1].Effective)
}

func sufficient(low, high uint32) bool {
	return low&(1<<capSysAdmin) != 0 || high&(1<<(capCheckpointRestore-32)) != 0
}

func (s *Server) procPath(thread uint32, name string) string {
	return s.options.Proc + "/" + strconv.FormatUint(uint64(thread), 10) + "/" + name
}

// privileged says whether the thread, which waits for our answer and so cannot
// be another one by now, may bump: one of the capabilities, in our own user
// namespace (everybody has all of them in a namespace of his own making). What
// cannot be found out is refused.
func (s *Server) privileged(thread uint32) bool {
	return thread != 0 && mayTrigger(thread) && s.inOurNamespace(thread)
}

func (s *Server) inOurNamespace(thread uint32) bool {
	theirs, err := os.Readlink(s.procPath(thread, "ns/user"))
	if err != nil {
		return false
	}
	ours, err := os.Readlink(s.options.Proc + "/self/ns/user")
	return err == nil && ours == theirs
}

// who names the thread's process.
func (s *Server) who(thread uint32) (pid int, comm string) {
	status, err := os.ReadFile(s.procPath(thread, "status"))
	if thread == 0 || err != nil {
		return int(thread), ""
	}
	pid, err = strconv.Atoi(field(status, "Tgid"))
	if err != nil {
		return int(thread), ""
	}
	return pid, field(status, "Name")
}
