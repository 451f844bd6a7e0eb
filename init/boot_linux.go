package main

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"rouse/config"
	"rouse/control"
	"rouse/firewall"
	"rouse/genid"
	"rouse/genid/sysgenid"
	"rouse/internal/fmt"
	"rouse/internal/guard"
	"rouse/quiesce"
	"rouse/quiesce/sockdiag"
	"rouse/rootfs"
	"rouse/service"
)

// cgroupRoot is where rootfs mounts the cgroup v2 hierarchy.
const cgroupRoot = "/sys/fs/cgroup"

// hookDir holds scripts that are called around snapshots with freeze, thaw or freeze-fail, as QEMU's
// guest agent calls its own.
const hookDir = "/etc/rouse/hooks.d"

// guest is everything that PID 1 holds.
type guest struct {
	log     *logger
	cfg     config.Config
	doc     config.Document
	sources *genid.Sources
	pool    *genid.Pool
	device  device
	bootID  rootfs.BootID
	clock   rootfs.HostClock
	// firecracker is that a metadata service may say who a copy is.
	firecracker bool
	// deviceMode is how the device is served: a mode of package sysgenid, or "native".
	deviceMode string
	gate       *firewall.Gate // nil where the kernel has no mechanism
	gateErr    error
	leases     *rootfs.Leases
	queues     *sockdiag.Inspector
	reaper     *service.Reaper
	services   *service.Manager
	flow       *quiesce.Machine
	problems   problems
	end        chan ending
}

// ending is how the machine is to end: by poweroff, reboot or halt, and a container with the exit status of its main service.
type ending struct {
	mode string
	code int
}

// bootGuest is the life of PID 1. It returns only if the machine cannot be ended.
func bootGuest() {
	// Without a console the reason of a failure would be lost; with a closed one, Go would not have
	// come this far. In a container what there is is the runtime's, and /dev/console may be the machine's.
	if rootfs.Container() == "" {
		_ = rootfs.OpenConsole()
	}
	g := &guest{log: newLogger(os.Stdout), end: make(chan ending, 1)}
	guard.OnPanic = g.panicked
	defer func() {
		if p := recover(); p != nil {
			g.log.warn("panic: %v\r\n%s", p, debug.Stack())
			g.powerOff(ending{mode: "poweroff"})
		}
	}()
	end, err := g.run(context.Background())
	if err != nil {
		g.log.warn("cannot go on: %v", err)
		for _, line := range strings.Split(err.Error(), "\n") {
			g.log.warn("reason: %s", line)
		}
		end = ending{"poweroff", 1}
	}
	g.powerOff(end)
}

// powerOff ends the machine. If even that fails there is nothing left to do but to stay: PID 1 must not
// exit, or the kernel panics and hides the reason.
func (g *guest) powerOff(end ending) {
	mode := end.mode
	if mode == "" {
		mode = "poweroff"
	}
	g.log.printf("%s", mode)
	if rootfs.Container() != "" {
		os.Exit(end.code)
	}
	if err := rootfs.PowerOff(mode); err != nil {
		g.log.printf("%s: %v", mode, err)
	}
	select {}
}

// run is the boot order. Each step says what it needs from those before it.
func (g *guest) run(ctx context.Context) (end ending, err error) {
	g.log.printf("rouse %s", version)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if err := g.prepare(); err != nil {
		return end, err
	}
	if _, err := rootfs.EnableControllers(cgroupRoot); err != nil {
		g.problem("%v", err)
	}
	if err := g.mounts(); err != nil {
		return end, err
	}
	if err := g.network(ctx); err != nil {
		return end, err
	}
	if err := g.equip(); err != nil {
		return end, err
	}
	return g.serve(ctx)
}

// prepare is what comes before and with the configuration: the machine's mounts, root and drivers, or a container's.
func (g *guest) prepare() error {
	if known := rootfs.Container(); known != "" {
		g.ownNothing(known)
		return g.configure(nil)
	}
	// Fatal: without /proc and /sys nothing below works.
	if err := rootfs.MountEarly(); err != nil {
		return err
	}
	// Fatal: a guest on another root than the one that it was given would serve other data.
	carried, err := g.enterRoot()
	if err != nil {
		return err
	}
	// Best effort, as with those of the configuration: a kernel may have them built in, or not need
	// them. What then lacks says so itself. Before the configuration: it may come from a disk or from fw_cfg.
	g.loadModules(config.BootModules())
	if err := g.configure(carried); err != nil {
		return err
	}
	g.loadModules(g.cfg.Modules)
	if g.cfg.Coldplug {
		g.plug()
	}
	if err := rootfs.MountLate(); err != nil {
		g.problem("%v", err)
	}
	return nil
}

func (g *guest) loadModules(names []string) {
	for _, err := range split(rootfs.LoadModules("", names)) {
		if !errors.Is(err, fs.ErrNotExist) {
			g.problem("module: %v", err)
		}
	}
}

// problem is something degraded: told in the status, and as a warning.
func (g *guest) problem(format string, args ...any) {
	g.problems.add(format, args...)
	g.log.warn(format, args...)
}

// configure reads the configuration. A mistake in it is fatal: services that were meant to be guarded
// would run otherwise.
func (g *guest) configure(carried []byte) error {
	sources, err := g.configSources(carried)
	if err != nil {
		return err
	}
	if g.doc, err = config.Load(sources); err != nil {
		return err
	}
	g.cfg = g.doc.Config
	g.log.configure(g.cfg.Log)
	return errors.Join(g.doc.CheckFiles(executable)...)
}

func executable(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s does not exist; put it into the image or correct the path", path)
	case err != nil:
		return err
	case !info.Mode().IsRegular() || info.Mode()&0o111 == 0:
		return fmt.Errorf("%s is not an executable file; give it mode 755", path)
	}
	return nil
}

// mounts are those of the configuration.
func (g *guest) mounts() error {
	var rows []rootfs.Mount
	for _, m := range g.cfg.Mounts {
		row, err := rootfs.ParseMount(m.Source, m.Target, m.Type, m.Options)
		if err != nil {
			return err
		}
		rows = append(rows, row)
	}
	return g.extraMounts(rows)
}

// equip opens what tells of a new generation, before the first service could depend on it. With guard
// everything is open that a quiesce or a resume will need, so that afterwards nothing has to be opened,
// loaded or allocated that could be missing.
func (g *guest) equip() error {
	var err error
	if g.pool, err = genid.OpenPool("/dev/urandom"); err != nil {
		return err
	}
	g.openSources()
	if rootfs.Container() == "" { // else it is the machine's
		// Before the first service, which may have mounts of its own. Best effort: each adjust's report says it again.
		if g.bootID, err = rootfs.CoverBootID(); err != nil {
			g.problem("boot id: %v", err)
		}
	}
	// Before the first service: a library that finds no device at its start never looks again.
	if err := g.serveDevice(); err != nil {
		return fmt.Errorf("generation device: %w", err)
	}
	g.log.printf("%s by %s", g.device.Path(), g.deviceMode)
	g.reaper = service.NewReaper()
	g.services, err = service.New(service.Options{CgroupRoot: cgroupRoot, Reaper: g.reaper,
		Log: g.log.printf, Output: g.log.output, HookDir: hookDir,
		Hooks: machineHooks(g.cfg.Hooks), Ended: g.mainEnded, NoTrace: true}, specs(g.cfg.Services))
	return err
}

// mainEnded ends the machine with a service, as a container ends with its main program.
func (g *guest) mainEnded(name, action string, code int) {
	g.log.warn("service %s has ended with status %d: %s", name, code, action)
	g.exit(ending{action, code})
}

// exit ends the machine and returns; it says no if something else has begun to end it.
func (g *guest) exit(how ending) bool {
	select {
	case g.end <- how:
		return true
	default:
		return false
	}
}

// guard finds the mechanisms that shut and empty this guest. Trying them out takes longer than all the rest
// of the boot, so it is done beside the start of services: until they are all ready nobody may quiesce, and a
// copy made in this instant is noticed and adjusted right after it.
func (g *guest) guard() (err error) {
	container := rootfs.Container() != ""
	if !container {
		g.loadModules(config.GuardModules())
		g.clock = rootfs.FindHostClock()
		g.firecracker = rootfs.IsFirecracker()
	}
	if container && !rootfs.OwnNetwork() {
		g.gateErr = errors.New("the network is the machine's, not the container's")
	} else {
		g.gate, g.gateErr = firewall.New(g.gateOptions())
	}
	if g.gateErr != nil {
		g.problem("gate: %v; no quiesce is possible, and a clone cannot be kept from speaking", g.gateErr)
	}
	// A service that keeps dialling has a SYN on its way whenever one looks, which hold lets nobody answer;
	// it is severed in the clone. The grace period of the barrier may be hurried: this guest is ours.
	var allowed []sockdiag.Allowed
	for _, a := range g.cfg.Gate.Allow {
		allowed = append(allowed, sockdiag.Allowed{Interface: a.Interface, Prefix: a.Prefix, Protocol: a.Protocol, Port: a.Port})
	}
	if g.queues, err = sockdiag.New(sockdiag.Options{Allowed: allowed, AllNamespaces: true, IgnoreConnecting: true, Expedite: true}); err != nil {
		return fmt.Errorf("socket queues: %w", err)
	}
	g.log.printf("gate by %s", g.mechanism())
	return nil
}

// openSources looks for what tells of a new generation. Not fatal: hypervisors without any announce a
// resume through the control channel. It comes before the device is served, which is no source.
func (g *guest) openSources() {
	o := genid.MachineOptions()
	o.Native = g.cfg.Sysgenid.Path
	o.Log = g.problem
	g.sources = genid.OpenSources(o)
	if g.sources.Primary() == "" {
		g.problem("no source of generations: a clone is noticed only when the host says so (rouse-resumed)")
	}
	g.log.printf("generation %q by %v", g.sources.ID(), g.sources.Names())
	if p := g.sources.Page(); p != nil {
		g.log.printf("VMGenID at %#x by %s in %s", p.Device.Address, p.Device.Path, p.Device.Table)
	}
}

// device is what init needs of the generation device: ours, or a kernel driver's.
type device interface {
	Path() string
	Generation() uint32
	Bump(least uint32) (uint32, error)
	Watchers() []sysgenid.Watcher
	Outdated() []sysgenid.Watcher
	Wait(context.Context) error
}

// servedDevice is our own; bumping it cannot fail.
type servedDevice struct{ *sysgenid.Server }

func (d servedDevice) Bump(least uint32) (uint32, error) { return d.Server.Bump(least), nil }

// serveDevice serves the device, or uses the one that a kernel driver has put there: it must never be
// covered, because services may have it open by its number.
func (g *guest) serveDevice() error {
	path := g.cfg.Sysgenid.Path
	served, err := sysgenid.Serve(path, sysgenid.Options{Mode: deviceMode(g.cfg.Sysgenid.Mode), Log: g.log.printf})
	if errors.Is(err, sysgenid.ErrNative) {
		native, err := sysgenid.OpenNative(path)
		if err != nil {
			return err
		}
		g.device, g.deviceMode = native, "native"
		return nil
	}
	if err != nil {
		return err
	}
	g.device, g.deviceMode = servedDevice{served}, served.Mode().String()
	if served.Mode() == sysgenid.ModeFile {
		g.problem("%s is a plain file: acknowledgements are not available (CONFIG_FUSE_FS)", path)
	}
	return nil
}

func (g *guest) gateOptions() firewall.Options {
	o := firewall.Options{Log: g.log.printf}
	if g.cfg.Gate.Mechanism != "auto" {
		o.Mechanism = g.cfg.Gate.Mechanism
	}
	if g.firecracker { // a copy asks who it is before its gate opens; the VMM itself answers
		o.Allow = append(o.Allow, firewall.Allow{Prefix: netip.PrefixFrom(rootfs.MMDSAddress, 32), Protocol: "tcp"})
	}
	for _, a := range g.cfg.Gate.Allow {
		o.Allow = append(o.Allow, firewall.Allow{Interface: a.Interface, Prefix: a.Prefix, Protocol: a.Protocol, Port: a.Port})
	}
	return o
}

func deviceMode(name string) sysgenid.Mode {
	for _, m := range []sysgenid.Mode{sysgenid.ModePassthrough, sysgenid.ModePageCache, sysgenid.ModeFile} {
		if m.String() == name {
			return m
		}
	}
	return sysgenid.ModeAuto
}

func (g *guest) mechanism() string {
	if g.gate == nil {
		return "nothing"
	}
	return g.gate.Mechanism()
}

// serve starts services, flow and control channel, and returns how the machine is to end.
func (g *guest) serve(ctx context.Context) (end ending, err error) {
	go guard.Do(func() {
		if err := g.reaper.Run(ctx); err != nil && ctx.Err() == nil {
			g.problem("reaper: %v", err)
		}
	})
	// Looking for a clone is a timer of the kernel's: Go's own wake three threads each time.
	if err := g.sources.Watch(slowLook(g.sources.Prompt())); err != nil {
		return end, fmt.Errorf("watch the generation: %w", err)
	}
	g.flow = quiesce.New(g.parts(), flowOptions(g.cfg, g.log.printf))
	signals := g.signals()
	listen := g.channel()
	go guard.Do(func() { g.startServices(ctx) })
	runtime.Gosched() // the first service is the first to run
	if err := g.guard(); err != nil {
		return end, err
	}
	go guard.Do(func() { g.flow.Run(ctx) })
	go guard.Do(func() { g.guardGate(ctx) })
	listen(ctx)
	select {
	case end = <-g.end:
	case s := <-signals:
		end.mode = map[os.Signal]string{unix.SIGINT: "reboot", unix.SIGTERM: "reboot", unix.SIGUSR1: "halt"}[s]
		g.log.printf("signal %s", s)
	}
	stopping, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := g.services.Stop(stopping); err != nil {
		g.log.printf("stop: %v", err)
	}
	if err := g.services.Close(); err != nil { // log files, which hold their mounts
		g.log.printf("stop: %v", err)
	}
	g.tell("EXIT_STATUS=" + strconv.Itoa(end.code))
	return end, nil
}

// guardGate shuts the gate again whenever somebody else has opened it, and tells of it.
func (g *guest) guardGate(ctx context.Context) {
	if g.gate == nil {
		return
	}
	err := g.gate.Guard(ctx, func(found firewall.State) {
		g.problem("gate: it was changed from outside and found %s; it is set again", found)
	})
	if err != nil && ctx.Err() == nil {
		g.problem("gate: unguarded: %v", err)
	}
}

// signals are how kernels and hypervisors ask PID 1 to end: Ctrl-Alt-Del is SIGINT, the power button of
// some VMMs SIGPWR; TERM, USR1 and USR2 are as busybox has them.
func (g *guest) signals() <-chan os.Signal {
	// Without this the kernel reboots at once on Ctrl-Alt-Del. A container may not; it has no such keys.
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF)
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGINT, unix.SIGTERM, unix.SIGPWR, unix.SIGUSR1, unix.SIGUSR2)
	return c
}

// startServices boots the services. One that does not come up leaves the machine booting, for the host
// to see why; the others go on.
func (g *guest) startServices(ctx context.Context) {
	if err := g.services.Start(ctx); err != nil {
		g.problem("services: %v", err)
		return
	}
	// Refused if a snapshot was resumed while booting: then the adjust ends the booting.
	if err := g.flow.Ready(); err != nil {
		g.log.printf("ready: %v", err)
	}
	g.log.printf("all services are ready")
	g.tell(control.Ready)
}

// split takes a joined error apart.
func split(err error) []error {
	if err == nil {
		return nil
	}
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, e := range j.Unwrap() {
			all = append(all, split(e)...)
		}
		return all
	}
	return []error{err}
}
