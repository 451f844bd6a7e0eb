package service

import (
	"math"
	"net/netip"
	"strconv"
	"strings"

	"rouse/internal/fmt"
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

func (l *Limits) check() error {
	// The kernel's least is 1 ms in 100. NaN is neither.
	if l.CPUs == 0 || l.CPUs >= 0.01 && l.CPUs <= math.MaxInt32 {
		return nil
	}
	return fmt.Errorf("limit cpus %v: not a number of cores from 0.01 on", l.CPUs)
}

// setting is one file of a cgroup and what to write to it.
type setting struct{ controller, file, value string }

// cpuPeriod is the kernel's default for cpu.max, in microseconds.
const cpuPeriod = 100_000

func (l *Limits) settings() []setting {
	var s []setting
	add := func(controller, file string, value uint64, suffix string) {
		if value > 0 {
			s = append(s, setting{controller, file, strconv.FormatUint(value, 10) + suffix})
		}
	}
	add("memory", "memory.max", l.MemoryMax, "")
	add("memory", "memory.oom.group", min(l.MemoryMax, 1), "")
	add("memory", "memory.high", l.MemoryHigh, "")
	add("cpu", "cpu.max", uint64(math.Round(l.CPUs*cpuPeriod)), " "+strconv.Itoa(cpuPeriod))
	add("pids", "pids.max", l.PIDs, "")
	return s
}

// controllers returns the names that all of units need, each once.
func controllers(units []*unit) []string {
	var names []string
	for _, u := range units {
		for _, set := range u.spec.Limits.settings() {
			if !contains(names, set.controller) {
				names = append(names, set.controller)
			}
		}
	}
	return names
}

func contains(list []string, s string) bool { return indexOf(list, s) >= 0 }

func (c *Confine) needed() bool {
	return len(c.Rlimits) > 0 || c.Nice != 0 || c.OOMScoreAdj != 0 || c.Capabilities != nil || c.NoNewPrivs ||
		c.PrivateTmp || len(c.ReadOnly) > 0 || c.Seccomp == "basic"
}

func (c *Confine) check() error {
	var p problems
	p.add(oneOf("seccomp", c.Seccomp, "none", "basic"))
	p.add(checkRange("nice", c.Nice, -20, 19))
	p.add(checkRange("oom_score_adj", c.OOMScoreAdj, -1000, 1000))
	for _, r := range c.Rlimits {
		if rlimitNumber(r.Name) < 0 {
			p.quote("rlimit", r.Name, "no such limit")
		}
		if r.Soft > r.Hard {
			p.quote("rlimit", r.Name, "soft limit above the hard one")
		}
	}
	for _, name := range c.Capabilities {
		if capabilityNumber(name) < 0 {
			p.quote("capability", name, "no such capability")
		}
	}
	for _, path := range c.ReadOnly {
		if !strings.HasPrefix(path, "/") {
			p.quote("read-only path", path, "not absolute")
		}
	}
	return p.err()
}

func checkRange(key string, n, least, most int) error {
	if n >= least && n <= most {
		return nil
	}
	return fmt.Errorf("%s %d: not within %d to %d", key, n, least, most)
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

// capabilityNumber is -1 for a name that is none.
func capabilityNumber(name string) int {
	return indexOf(capabilityNames[:], strings.TrimPrefix(strings.ToLower(name), "cap_"))
}

// rlimitNames are those of include/uapi/asm-generic/resource.h by their number.
var rlimitNames = [...]string{
	"cpu", "fsize", "data", "stack", "core", "rss", "nproc", "nofile", "memlock", "as", "locks", "sigpending", "msgqueue",
	"nice", "rtprio", "rttime",
}

// rlimitNumber is -1 for a name that is none.
func rlimitNumber(name string) int { return indexOf(rlimitNames[:], name) }

func indexOf(list []string, s string) int {
	for i, e := range list {
		if e == s {
			return i
		}
	}
	return -1
}

// parse splits Listen into what socket(2) and bind(2) want.
func (s *Socket) parse() (network string, at netip.AddrPort, path string, err error) {
	network, path, _ = strings.Cut(s.Listen, ":")
	why := ""
	switch network {
	case "tcp", "udp":
		if at, err = netip.ParseAddrPort(path); err != nil {
			why = err.Error()
		}
	case "unix":
		// 108 bytes of sun_path (unix(7)) with the zero at its end.
		if !strings.HasPrefix(path, "/") || len(path) > 107 {
			why = "not an absolute path of at most 107 bytes"
		}
	default:
		why = "not tcp:ADDRESS:PORT, udp:ADDRESS:PORT or unix:/PATH"
	}
	return network, at, path, wrong("socket", s.Listen, why)
}

func (s *Socket) check() error {
	if err := s.checkName(); err != nil {
		return err
	}
	_, _, _, err := s.parse()
	return err
}

// checkName refuses what would garble LISTEN_FDNAMES, by the rule of sd_pid_notify_with_fds(3).
func (s *Socket) checkName() error {
	for _, c := range []byte(s.Name) {
		if c <= ' ' || c >= 0x7f || c == ':' {
			return wrong("socket name", s.Name, "only printable ASCII without blank and colon")
		}
	}
	if len(s.Name) > 255 {
		return wrong("socket name", s.Name, "longer than 255 bytes")
	}
	return nil
}
