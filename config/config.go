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
	"fmt"
	"net/netip"
	"time"
)

// Path is where the guest reads its configuration.
const Path = "/etc/rouse.toml"

// Config is the whole file. Durations are written as "10s" or "250ms".
type Config struct {
	// Hostname is set at boot; empty keeps the kernel's.
	Hostname string `toml:"hostname"`
	// Modules are kernel modules that services need, loaded after rouse's own, in this order.
	Modules    []string    `toml:"modules"`
	Interfaces []Interface `toml:"interface"`
	Gate       Gate        `toml:"gate"`
	Sysgenid   Sysgenid    `toml:"sysgenid"`
	Quiesce    Quiesce     `toml:"quiesce"`
	Adjust     Adjust      `toml:"adjust"`
	Control    Control     `toml:"control"`
	Services   []Service   `toml:"service"`
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
	// DropCaches empties the page cache before the snapshot, for a smaller one.
	DropCaches bool `toml:"drop-caches"`
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
	// After names services that must be ready before this one starts.
	After []string `toml:"after"`
	// Oneshot services are ready when they have ended with status 0.
	Oneshot bool `toml:"oneshot"`
	// Restart is "never", "on-failure" or "always".
	Restart      string   `toml:"restart"`
	RestartDelay Duration `toml:"restart-delay"`
	// Ready is "started", "notify" (sd_notify READY=1) or "port" (ReadyPort is listened on).
	Ready        string   `toml:"ready"`
	ReadyPort    uint16   `toml:"ready-port"`
	ReadyTimeout Duration `toml:"ready-timeout"`
	StopSignal   string   `toml:"stop-signal"`
	StopTimeout  Duration `toml:"stop-timeout"`
	// Settle is "require", "try" or "off".
	Settle         string `toml:"settle"`
	BeforeSnapshot []Hook `toml:"before-snapshot"`
	AfterRestore   []Hook `toml:"after-restore"`
}

// Hook is a program run around a snapshot.
type Hook struct {
	Exec    []string `toml:"exec"`
	Timeout Duration `toml:"timeout"`
}

// Duration is a time.Duration that TOML writes as "10s".
type Duration time.Duration

// UnmarshalText parses what time.ParseDuration does, without negative values.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil || v < 0 {
		return fmt.Errorf("%q is not a duration such as \"10s\" or \"250ms\"", text)
	}
	*d = Duration(v)
	return nil
}

// MarshalText is the inverse of UnmarshalText.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// Default is the configuration of an empty file.
func Default() Config {
	return Config{
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
	setDefault(&s.StopSignal, "TERM")
	setDefault(&s.RestartDelay, Duration(500*time.Millisecond))
	setDefault(&s.ReadyTimeout, Duration(30*time.Second))
	setDefault(&s.StopTimeout, Duration(10*time.Second))
	for _, hooks := range [][]Hook{s.BeforeSnapshot, s.AfterRestore} {
		for i := range hooks {
			setDefault(&hooks[i].Timeout, Duration(10*time.Second))
		}
	}
}

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// Programs are the paths of everything that the configuration would run, services first.
func (c Config) Programs() []string {
	var list []string
	for _, s := range c.Services {
		list = append(list, s.Exec[0])
	}
	for _, s := range c.Services {
		for _, h := range append(append([]Hook(nil), s.BeforeSnapshot...), s.AfterRestore...) {
			list = append(list, h.Exec[0])
		}
	}
	return list
}
