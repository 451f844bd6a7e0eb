// Package config is rouse's configuration: one TOML file, /etc/rouse.toml in the guest, that the
// host reads too, so that a mistake is found by `rouse build` and not by a guest that does not come up.
//
// The easy case is a file with one [[service]] table: everything else has a default. On the kernel
// command line, `rouse.KEY=VALUE` sets one key above the file (`rouse.quiesce.leftovers=keep`); tables
// that come in lists cannot be set there.
//
// Every refusal is an *Error with file, line, key and cure. Check needs no privileges and looks at
// nothing but the text; that a service's binary exists is asked of the image, by CheckFiles.
package config

import (
	"net/netip"
	"strings"
	"time"
)

// Path is where the guest reads its configuration.
const Path = "/etc/rouse.toml"

// Config is the whole file. Durations are written as "10s" or "250ms".
type Config struct {
	// Hostname is set at boot; empty keeps the kernel's.
	Hostname string `toml:"hostname"`
	// Modules are kernel modules that services need, loaded after rouse's own, in this order.
	Modules []string `toml:"modules"`
	// Coldplug also loads a module for every device that the kernel found and has none for.
	Coldplug   bool        `toml:"coldplug"`
	Log        Log         `toml:"log"`
	Mounts     []Mount     `toml:"mount"`
	Interfaces []Interface `toml:"interface"`
	Resolver   Resolver    `toml:"resolver"`
	Gate       Gate        `toml:"gate"`
	Sysgenid   Sysgenid    `toml:"sysgenid"`
	Quiesce    Quiesce     `toml:"quiesce"`
	Adjust     Adjust      `toml:"adjust"`
	Control    Control     `toml:"control"`
	Hooks      Hooks       `toml:"hooks"`
	Services   []Service   `toml:"service"`
}

// Log is where rouse's own lines go; what is kept for `rousectl log` is always all of them.
type Log struct {
	// Console and Kmsg are the least level that goes there: "info", "warning" or "off".
	Console string `toml:"console"`
	Kmsg    string `toml:"kmsg"`
	// Services says if the output of services goes to the console.
	Services bool `toml:"services"`
}

// Mount is a filesystem for services, mounted in the order of the file.
type Mount struct {
	// Source is a device, LABEL=, UUID=, PARTLABEL= or PARTUUID=, or what the type wants (a 9p or
	// virtiofs tag).
	Source string `toml:"source"`
	Target string `toml:"target"`
	Type   string `toml:"type"`
	// Options are as in fstab(5), "ro,nodev,size=64m". With "nofail" the guest comes up without it.
	Options string `toml:"options"`
}

// Resolver is what /etc/resolv.conf is made of; what DHCP says comes after it.
type Resolver struct {
	Servers []netip.Addr `toml:"servers"`
	Search  []string     `toml:"search"`
}

// Interface is one network interface, chosen by Name or by MAC; with neither, the first that is not
// loopback.
type Interface struct {
	Name string `toml:"name"`
	MAC  string `toml:"mac"`
	// Addresses are prefixes: "10.0.2.15/24", "fd00::15/64".
	Addresses []netip.Prefix `toml:"addresses"`
	Gateway4  netip.Addr     `toml:"gateway4"`
	Gateway6  netip.Addr     `toml:"gateway6"`
	// MTU in bytes; 0 keeps the driver's.
	MTU int `toml:"mtu"`
	// DHCP is "" or "off", "ipv4", "ipv6" (router advertisements, and DHCPv6 where they say so) or "both".
	DHCP   string  `toml:"dhcp"`
	Routes []Route `toml:"route"`
}

// Route is a route beside the default ones.
type Route struct {
	To  netip.Prefix `toml:"to"`
	Via netip.Addr   `toml:"via"`
}

// Gate configures the firewall package.
type Gate struct {
	// Mechanism is "auto" or the name of one rung of the ladder.
	Mechanism string `toml:"mechanism"`
	// Allow is traffic that stays free while the gate is shut, for a management network. What it
	// names is not protected: a service that can use it speaks with its twin's secrets.
	Allow []Allow `toml:"allow"`
}

// Allow names traffic by interface, prefix, protocol and port; an empty field is any.
type Allow struct {
	Interface string       `toml:"interface"`
	Prefix    netip.Prefix `toml:"prefix"`
	Protocol  string       `toml:"protocol"`
	Port      uint16       `toml:"port"`
}

// Sysgenid configures the device.
type Sysgenid struct {
	// Path of the device in the guest.
	Path string `toml:"path"`
	// Mode is "auto", "passthrough", "pagecache" or "file".
	Mode string `toml:"mode"`
}

// Quiesce configures what happens before a snapshot.
type Quiesce struct {
	// Timeout is how long the drain may take before Leftovers decides.
	Timeout Duration `toml:"timeout"`
	// Leftovers is what becomes of a socket that still holds something at the deadline: "abort",
	// "destroy" or "keep".
	Leftovers string `toml:"leftovers"`
	// SettleTimeout is how long services may take to come to rest, FreezeTimeout how long the freezer may.
	SettleTimeout Duration `toml:"settle-timeout"`
	FreezeTimeout Duration `toml:"freeze-timeout"`
	// Watchdog thaws a quiesced guest that neither a new generation nor a release reaches, counted in
	// guest-run time; "0s" never does.
	Watchdog Duration `toml:"watchdog"`
	// Freeze are mount points whose filesystems are frozen for the snapshot; "all" is every one that can be.
	Freeze []string `toml:"freeze"`
	// DropCaches empties the page cache before the snapshot, for a smaller one; Compact moves what is in use
	// together, and Trim tells block devices what is free.
	DropCaches bool `toml:"drop-caches"`
	Compact    bool `toml:"compact"`
	Trim       bool `toml:"trim"`
}

// Adjust configures what happens after a resume with a new generation.
type Adjust struct {
	// Late is what becomes of a tracked watcher that has not acknowledged within Timeout: "hold" (stay
	// shut), "restart" its service, or "release" with a warning.
	Late    string   `toml:"late"`
	Timeout Duration `toml:"timeout"`
}

// Control configures the host channel.
type Control struct {
	// Serial is the name of the virtio-serial port; empty turns it off.
	Serial string `toml:"serial"`
	// Vsock is the port that the host may connect to; 0 is off.
	Vsock uint32 `toml:"vsock"`
	// Socket is the path of the unix socket in the guest, for rousectl.
	Socket string `toml:"socket"`
	// Notify is where READY=1 goes when all services are ready, as systemd's vmm.notify_socket.
	Notify string `toml:"notify"`
	// Exec lets the host run programs in the guest (guest-exec).
	Exec bool `toml:"exec"`
}

// Service is one supervised program.
type Service struct {
	Name string `toml:"name"`
	// Exec is the argument vector; the first element is an absolute path.
	Exec []string `toml:"exec"`
	// Env is added to rouse's own small environment, "NAME=value".
	Env   []string `toml:"env"`
	Dir   string   `toml:"dir"`
	User  string   `toml:"user"`
	Group string   `toml:"group"`
	// Groups are further supplementary groups, by name or number.
	Groups []string `toml:"groups"`
	// After names services that must be ready before this one starts.
	After []string `toml:"after"`
	// Oneshot services are ready when they have ended with status 0.
	Oneshot bool `toml:"oneshot"`
	// Restart is "never", "on-failure" or "always".
	Restart      string   `toml:"restart"`
	RestartDelay Duration `toml:"restart-delay"`
	RestartMax   Duration `toml:"restart-max"`
	// StartLimit is how many starts within StartWindow make a service failed; -1 is no limit.
	StartLimit  int      `toml:"start-limit"`
	StartWindow Duration `toml:"start-window"`
	// OnExit is what becomes of the machine when the service has ended for good: "none", "poweroff" or
	// "reboot".
	OnExit string `toml:"on-exit"`
	// Ready is "started", "notify" (sd_notify READY=1), "fd" (a newline on a descriptor, as s6 has it),
	// "port" (ReadyPort is listened on), "http" (a GET of ReadyURL is answered with 2xx) or "exec"
	// (ReadyExec ends with 0).
	Ready        string   `toml:"ready"`
	ReadyPort    uint16   `toml:"ready-port"`
	ReadyURL     string   `toml:"ready-url"`
	ReadyExec    []string `toml:"ready-exec"`
	ReadyTimeout Duration `toml:"ready-timeout"`
	StopSignal   string   `toml:"stop-signal"`
	StopTimeout  Duration `toml:"stop-timeout"`
	Health       Health   `toml:"health"`
	Watchdog     Duration `toml:"watchdog"`

	MemoryMax   Size     `toml:"memory-max"`
	MemoryHigh  Size     `toml:"memory-high"`
	CPUs        Cores    `toml:"cpus"`
	PIDsMax     uint64   `toml:"pids-max"`
	Rlimits     []Rlimit `toml:"rlimits"`
	Nice        int      `toml:"nice"`
	OOMScoreAdj int      `toml:"oom-score-adj"`
	// Capabilities, where the key is there, are the only ones.
	Capabilities []string `toml:"capabilities"`
	NoNewPrivs   bool     `toml:"no-new-privs"`
	PrivateTmp   bool     `toml:"private-tmp"`
	ReadOnly     []string `toml:"read-only"`
	// Seccomp is "none" or "basic".
	Seccomp string   `toml:"seccomp"`
	Sockets []Socket `toml:"socket"`
	FDStore int      `toml:"fd-store"`

	LogFile LogFile `toml:"log"`

	// Settle is "require", "try" or "off".
	Settle string `toml:"settle"`

	BeforeSnapshot []Hook `toml:"before-snapshot"`
	AfterRestore   []Hook `toml:"after-restore"`
	AfterRelease   []Hook `toml:"after-release"`
}

// Health is a check that is repeated while the service is ready.
type Health struct {
	// Check is "", "port", "http" or "exec", as Ready.
	Check    string   `toml:"check"`
	Port     uint16   `toml:"port"`
	URL      string   `toml:"url"`
	Exec     []string `toml:"exec"`
	Interval Duration `toml:"interval"`
	Timeout  Duration `toml:"timeout"`
	Retries  int      `toml:"retries"`
}

// LogFile is a file that a service's output is written to besides what is kept in memory.
type LogFile struct {
	Path string `toml:"path"`
	Size Size   `toml:"size"`
	// Keep is how many of before are kept, -1 is none.
	Keep int `toml:"keep"`
}

// Socket is opened by init and handed to the service.
type Socket struct {
	Name string `toml:"name"`
	// Listen is "tcp:ADDRESS:PORT", "udp:ADDRESS:PORT" or "unix:/PATH".
	Listen string `toml:"listen"`
	// Mode of a unix socket's file, octal: "0660".
	Mode Mode `toml:"mode"`
}

// Hooks are those of the machine as a whole.
type Hooks struct {
	// BeforeSnapshot hooks run before those of services; one that fails aborts the quiesce.
	BeforeSnapshot []Hook `toml:"before-snapshot"`
	// AfterRestore hooks run after those of services, before the gate opens; one that fails keeps it shut.
	AfterRestore []Hook `toml:"after-restore"`
	// AfterRelease hooks run where the same machine goes on.
	AfterRelease []Hook `toml:"after-release"`
}

// Hook is what is done around a snapshot: a program is run, or what URL names is asked.
type Hook struct {
	Exec    []string `toml:"exec"`
	User    string   `toml:"user"`
	URL     string   `toml:"url"`
	Timeout Duration `toml:"timeout"`
}

// EachHook calls f for every hook of the configuration, with its key.
func (c *Config) EachHook(f func(key string, h *Hook)) {
	lists := func(prefix string, before, after, release []Hook) {
		for i, list := range [...][]Hook{before, after, release} {
			key := prefix + [...]string{"before-snapshot", "after-restore", "after-release"}[i]
			for j := range list {
				f(at(key, j), &list[j])
			}
		}
	}
	for i := range c.Services {
		s := &c.Services[i]
		lists(at("service", i)+".", s.BeforeSnapshot, s.AfterRestore, s.AfterRelease)
	}
	lists("hooks.", c.Hooks.BeforeSnapshot, c.Hooks.AfterRestore, c.Hooks.AfterRelease)
}

// Default is the configuration of an empty file.
func Default() Config {
	return Config{
		Log:      Log{Console: "info", Kmsg: "off", Services: true},
		Gate:     Gate{Mechanism: "auto"},
		Sysgenid: Sysgenid{Path: "/dev/sysgenid", Mode: "auto"},
		Quiesce: Quiesce{
			Timeout:       Duration(10 * time.Second),
			Leftovers:     "abort",
			SettleTimeout: Duration(5 * time.Second),
			FreezeTimeout: Duration(5 * time.Second),
			Watchdog:      Duration(60 * time.Second),
		},
		Adjust:  Adjust{Late: "hold", Timeout: Duration(10 * time.Second)},
		Control: Control{Serial: "org.qemu.guest_agent.0", Socket: "/run/rouse/control.sock"},
	}
}

// serviceDefaults fills what a [[service]] table leaves out.
func (s *Service) serviceDefaults() {
	setDefault(&s.Restart, "on-failure")
	setDefault(&s.Ready, "started")
	setDefault(&s.Settle, "require")
	setDefault(&s.OnExit, "none")
	setDefault(&s.Seccomp, "none")
	setDefault(&s.StopSignal, "TERM")
	setDefault(&s.RestartDelay, Duration(500*time.Millisecond))
	setDefault(&s.ReadyTimeout, Duration(30*time.Second))
	setDefault(&s.StopTimeout, Duration(10*time.Second))
}

// mountDefaults fills what a [[mount]] table leaves out. A source of no name would leave a hole in /proc/mounts.
func (m *Mount) mountDefaults() {
	if !m.bound() && (strings.HasPrefix(m.Source, "/dev/") || strings.Contains(m.Source, "=")) {
		setDefault(&m.Type, "auto")
	}
	setDefault(&m.Source, m.Type)
}

// bound says if the source is a folder of the guest's own, whose type is known.
func (m *Mount) bound() bool { return strings.Contains(","+m.Options+",", "bind,") }

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// Programs are the paths of everything that the configuration would run.
func (c Config) Programs() []string {
	var list []string
	c.programs(func(_ string, argv []string) {
		if len(argv) > 0 {
			list = append(list, argv[0])
		}
	})
	return list
}
