package definition

import (
	"slices"
	"strings"
)

// capabilityNames are those of include/uapi/linux/capability.h (Linux 6.12) by their number.
var capabilityNames = [...]string{
	"chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap",
	"linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner",
	"sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice",
	"sys_resource", "sys_time", "sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap",
	"mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf",
	"checkpoint_restore",
}

// Capability is the number of a name, with or without "cap_" before it, in letters of any size; -1 if it is none.
func Capability(name string) int {
	return slices.Index(capabilityNames[:], strings.TrimPrefix(strings.ToLower(name), "cap_"))
}

// rlimitNames are those of include/uapi/asm-generic/resource.h by their number.
var rlimitNames = [...]string{
	"cpu", "fsize", "data", "stack", "core", "rss", "nproc", "nofile", "memlock", "as", "locks", "sigpending", "msgqueue",
	"nice", "rtprio", "rttime",
}

// Rlimit is the number of a limit of setrlimit(2); -1 if there is none of that name.
func Rlimit(name string) int { return slices.Index(rlimitNames[:], name) }
