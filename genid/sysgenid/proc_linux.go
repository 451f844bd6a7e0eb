package sysgenid

import (
	"bytes"
	"os"
	"strconv"
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

// mayTrigger reads the effective capabilities from a /proc/PID/status.
func mayTrigger(status []byte) bool {
	effective, err := strconv.ParseUint(field(status, "CapEff"), 16, 64)
	return err == nil && effective&(1<<capSysAdmin|1<<capCheckpointRestore) != 0
}

func (s *Server) procPath(thread uint32, name string) string {
	return s.options.Proc + "/" + strconv.FormatUint(uint64(thread), 10) + "/" + name
}

// privileged says whether the thread, which waits for our answer and so cannot
// be another one by now, may bump: one of the capabilities, in our own user
// namespace (everybody has all of them in a namespace of his own making). What
// cannot be found out is refused.
func (s *Server) privileged(thread uint32) bool {
	if thread == 0 {
		return false
	}
	status, err := os.ReadFile(s.procPath(thread, "status"))
	if err != nil || !mayTrigger(status) {
		return false
	}
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
