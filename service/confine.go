package service

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"sort"
	"strings"
)

// Limits bound what all processes of a service together may use. A kernel without the controller
// refuses the service rather than run it without its limit.
type Limits struct {
	MemoryMax  uint64  // bytes; beyond it the kernel kills the whole service (memory.max, memory.oom.group)
	MemoryHigh uint64  // bytes; beyond it the service is slowed and reclaimed from (memory.high)
	CPUs       float64 // cores' worth of time in each 100 ms (cpu.max)
	PIDs       uint64  // processes and threads (pids.max)
}

// Unlimited is a Rlimit's value for no limit.
const Unlimited = math.MaxUint64

// Rlimit is a limit of setrlimit(2) for each process. Name is that of the shell and of OCI in small
// letters without prefix: "nofile", "nproc", "core", "memlock", "stack", ...
type Rlimit struct {
	Name       string
	Soft, Hard uint64
}

// Confine is what a service may do less than its user could. It needs RunShim in the program's
// main.
type Confine struct {
	Rlimits     []Rlimit
	Nice        int // -20 to 19
	OOMScoreAdj int // -1000 to 1000
	// Capabilities, if not nil, are the only ones that the service and all its children can ever
	// have: "net_bind_service", with or without "cap_". Users other than root get them too.
	Capabilities []string
	NoNewPrivs   bool     // set-uid programs and file capabilities give nothing
	PrivateTmp   bool     // an empty /tmp and /var/tmp of its own
	ReadOnly     []string // paths that are read-only for the service
	Seccomp      string   // "none" (also "") or "basic": no mounting, modules, tracing, clock setting, bpf; implies NoNewPrivs
}

// Socket is a socket that init opens and holds, and that the service finds as sd_listen_fds(3)
// describes. It outlives restarts, and in a clone it accepts from the moment the gate opens.
type Socket struct {
	Name   string // for LISTEN_FDNAMES
	Listen string // "tcp:ADDRESS:PORT", "udp:ADDRESS:PORT" or "unix:/PATH"
	Mode   uint32 // of a unix socket's file; 0666 if 0
}

func (l Limits) check() error {
	if l.CPUs < 0 || math.IsNaN(l.CPUs) || math.IsInf(l.CPUs, 0) {
		return fmt.Errorf("limit cpus %v: not a number of cores", l.CPUs)
	}
	if l.CPUs > 0 && l.CPUs < 0.01 {
		return fmt.Errorf("limit cpus %v: the kernel's least is 0.01", l.CPUs)
	}
	return nil
}

// setting is one file of a cgroup and what to write to it.
type setting struct{ controller, file, value string }

// cpuPeriod is the kernel's default for cpu.max, in microseconds.
const cpuPeriod = 100_000

func (l Limits) settings() []setting {
	var s []setting
	if l.MemoryMax > 0 {
		s = append(s, setting{"memory", "memory.max", fmt.Sprint(l.MemoryMax)}, setting{"memory", "memory.oom.group", "1"})
	}
	if l.MemoryHigh > 0 {
		s = append(s, setting{"memory", "memory.high", fmt.Sprint(l.MemoryHigh)})
	}
	if l.CPUs > 0 {
		s = append(s, setting{"cpu", "cpu.max", fmt.Sprintf("%.0f %d", math.Round(l.CPUs*cpuPeriod), cpuPeriod)})
	}
	if l.PIDs > 0 {
		s = append(s, setting{"pids", "pids.max", fmt.Sprint(l.PIDs)})
	}
	return s
}

// controllers returns the names that all of specs need, sorted.
func controllers(specs []Spec) []string {
	var names []string
	for _, s := range specs {
		for _, set := range s.Limits.settings() {
			if !contains(names, set.controller) {
				names = append(names, set.controller)
			}
		}
	}
	sort.Strings(names)
	return names
}

func contains(list []string, s string) bool {
	for _, e := range list {
		if e == s {
			return true
		}
	}
	return false
}

func (c Confine) needed() bool {
	return len(c.Rlimits) > 0 || c.Nice != 0 || c.OOMScoreAdj != 0 || c.Capabilities != nil || c.NoNewPrivs ||
		c.PrivateTmp || len(c.ReadOnly) > 0 || c.Seccomp == "basic"
}

func (c Confine) check() error {
	problems := []error{oneOf("seccomp", c.Seccomp, "", "none", "basic")}
	if c.Nice < -20 || c.Nice > 19 {
		problems = append(problems, fmt.Errorf("nice %d: not within -20 to 19", c.Nice))
	}
	if c.OOMScoreAdj < -1000 || c.OOMScoreAdj > 1000 {
		problems = append(problems, fmt.Errorf("oom_score_adj %d: not within -1000 to 1000", c.OOMScoreAdj))
	}
	for _, r := range c.Rlimits {
		if _, ok := rlimitNumbers[r.Name]; !ok {
			problems = append(problems, fmt.Errorf("rlimit %q: no such limit", r.Name))
		}
		if r.Soft > r.Hard {
			problems = append(problems, fmt.Errorf("rlimit %s: soft %d above hard %d", r.Name, r.Soft, r.Hard))
		}
	}
	for _, name := range c.Capabilities {
		if _, ok := capabilityNumber(name); !ok {
			problems = append(problems, fmt.Errorf("capability %q: no such capability", name))
		}
	}
	for _, p := range c.ReadOnly {
		if !strings.HasPrefix(p, "/") {
			problems = append(problems, fmt.Errorf("read-only path %q: not absolute", p))
		}
	}
	return errors.Join(problems...)
}

// capabilityNames are those of include/uapi/linux/capability.h (Linux 6.12) by their number.
var capabilityNames = [...]string{
	"chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap",
	"linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner",
	"sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice",
	"sys_resource", "sys_time", "sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap",
	"mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf",
	"checkpoint_restore",
}

func capabilityNumber(name string) (int, bool) {
	name = strings.TrimPrefix(strings.ToLower(name), "cap_")
	for i, n := range capabilityNames {
		if n == name {
			return i, true
		}
	}
	return 0, false
}

// rlimitNumbers are those of include/uapi/asm-generic/resource.h.
var rlimitNumbers = map[string]int{
	"cpu": 0, "fsize": 1, "data": 2, "stack": 3, "core": 4, "rss": 5, "nproc": 6, "nofile": 7, "memlock": 8, "as": 9,
	"locks": 10, "sigpending": 11, "msgqueue": 12, "nice": 13, "rtprio": 14, "rttime": 15,
}

// parse splits Listen into what socket(2) and bind(2) want.
func (s Socket) parse() (network string, at netip.AddrPort, path string, err error) {
	network, rest, _ := strings.Cut(s.Listen, ":")
	switch network {
	case "tcp", "udp":
		if at, err = netip.ParseAddrPort(rest); err != nil {
			err = fmt.Errorf("socket %q: %w", s.Listen, err)
		}
		return network, at, "", err
	case "unix":
		// 108 bytes of sun_path (unix(7)) with the zero at its end.
		if !strings.HasPrefix(rest, "/") || len(rest) > 107 {
			err = fmt.Errorf("socket %q: not an absolute path of at most 107 bytes", s.Listen)
		}
		return network, at, rest, err
	}
	return "", at, "", fmt.Errorf("socket %q: not tcp:ADDRESS:PORT, udp:ADDRESS:PORT or unix:/PATH", s.Listen)
}

func (s Socket) check() error {
	if err := s.checkName(); err != nil {
		return err
	}
	_, _, _, err := s.parse()
	return err
}

// checkName refuses what would garble LISTEN_FDNAMES, by the rule of sd_pid_notify_with_fds(3).
func (s Socket) checkName() error {
	for _, c := range []byte(s.Name) {
		if c <= ' ' || c >= 0x7f || c == ':' {
			return fmt.Errorf("socket name %q: only printable ASCII without blank and colon", s.Name)
		}
	}
	if len(s.Name) > 255 {
		return fmt.Errorf("socket name %.20q...: longer than 255 bytes", s.Name)
	}
	return nil
}
