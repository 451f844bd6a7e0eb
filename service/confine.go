package service

import (
	"math"
	"strconv"
	"strings"

	"rouse/internal/definition"
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
		if definition.Rlimit(r.Name) < 0 {
			p.quote("rlimit", r.Name, "no such limit")
		}
		if r.Soft > r.Hard {
			p.quote("rlimit", r.Name, "soft limit above the hard one")
		}
	}
	for _, name := range c.Capabilities {
		if definition.Capability(name) < 0 {
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

func indexOf(list []string, s string) int {
	for i, e := range list {
		if e == s {
			return i
		}
	}
	return -1
}

func (s *Socket) check() error {
	if err := wrong("socket name", s.Name, definition.CheckSocketName(s.Name)); err != nil {
		return err
	}
	_, _, _, why := definition.ParseListen(s.Listen)
	return wrong("socket", s.Listen, why)
}
