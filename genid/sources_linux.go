package genid

import (
	"errors"
	"io/fs"
	"os"
	"sync"
	"time"
)

// The names of sources, in the order in which they are trusted.
const (
	SourceVMGenID  = "vmgenid"  // the page of the ACPI or device tree device
	SourceVMClock  = "vmclock"  // the counter in the page of a vmclock device
	SourceSysGenID = "sysgenid" // a kernel driver's /dev/sysgenid, moved by others
	SourceKernel   = "kmsg"     // the kernel's VMGenID driver has logged a clone
	SourceUevent   = "uevent"   // it has sent a uevent
)

// Options say where to look for sources. A field that is empty, nil or false leaves its source out.
type Options struct {
	Tables  fs.FS  // ACPI tables, as /sys/firmware/acpi/tables
	Tree    fs.FS  // device tree, as /sys/firmware/devicetree/base; looked at if the tables have no VMGenID, or VMClock is absent
	Memory  string // physical memory, as /dev/mem
	Iomem   string // the kernel's map of it, as /proc/iomem: what an AML method may read
	VMClock string // as /dev/vmclock0
	Native  string // as /dev/sysgenid; used only if it is a character device, not what rouse serves
	// KernelLog (as /dev/kmsg) and Uevents are used where the kernel's VMGenID driver has a device, which
	// Buses (as /sys/bus) tells: from other kernels the word would never come.
	KernelLog string
	Uevents   bool
	Buses     fs.FS
	// Log is told why a source that is there cannot be used. It may be called from any goroutine.
	Log func(format string, args ...any)
}

// MachineOptions are the paths of a running Linux machine.
func MachineOptions() Options {
	return Options{
		Tables: os.DirFS("/sys/firmware/acpi/tables"), Tree: os.DirFS("/sys/firmware/devicetree/base"),
		Memory: "/dev/mem", Iomem: "/proc/iomem", VMClock: "/dev/vmclock0", Native: "/dev/sysgenid",
		KernelLog: "/dev/kmsg", Uevents: true, Buses: os.DirFS("/sys/bus"),
	}
}

// Sources are all the ways in which this machine can notice that it is a copy, as one identity. Its
// methods may be called from any goroutine; none may be called after Close.
type Sources struct {
	log    func(format string, args ...any)
	names  []string
	events chan struct{}

	files   []*os.File // what the event goroutines wait on
	running sync.WaitGroup
	close   []func() error

	page   *Page
	native *nativeCounter
	prompt bool

	mu  sync.Mutex // guards the agreement; a bump of the native device is made while it is held
	all agreement
	now func() time.Time
}

// OpenSources opens every source that the machine has. That there is none is no error: Names is empty
// then, and only the host can tell of a new generation.
func OpenSources(o Options) *Sources {
	s := &Sources{log: o.Log, events: make(chan struct{}, 1), now: time.Now}
	if s.log == nil {
		s.log = func(string, ...any) {}
	}
	// In the order of trust: the first is the primary one.
	s.usable(SourceVMGenID, s.addPage(o))
	s.usable(SourceVMClock, s.addClock(o))
	identity := len(s.all.members) > 0
	if driverBound(o.Buses) {
		s.usable(SourceKernel, s.addKernelLog(o.KernelLog, !identity))
		s.usable(SourceUevent, s.addUevents(o.Uevents, !identity))
	}
	s.usable(SourceSysGenID, s.addNative(o.Native))
	s.all.start()
	return s
}

// errAbsent is a source that this machine does not have.
var errAbsent error = fault("absent")

func (s *Sources) usable(name string, err error) {
	switch {
	case err == nil:
		s.names = append(s.names, name)
	case !errors.Is(err, errAbsent):
		s.log("%s: %v", name, err)
	}
}

// driverBound says that the kernel's VMGenID driver has found a device. It has been a driver of the ACPI
// bus up to Linux 6.9, and is one of the platform bus since.
func driverBound(buses fs.FS) bool {
	if buses == nil {
		return false
	}
	for _, bus := range []string{"platform", "acpi"} {
		entries, _ := fs.ReadDir(buses, bus+"/drivers/vmgenid") // none if there is no such driver
		for _, e := range entries {
			// Beside its devices a driver's folder has plain files, and a link to its module.
			if e.Type()&fs.ModeSymlink != 0 && e.Name() != "module" {
				return true
			}
		}
	}
	return false
}

// ID is the machine's generation identity at this instant, "" if no source has one. Two equal texts are
// one generation. It is a few loads from memory and allocates only when the identity has changed, so
// that it can be called every millisecond.
//
// With a VMGenID it is that id, and otherwise "vmclock:N", "sysgenid:N" or, from the first clone that the
// kernel tells of, "kmsg:N" and "uevent:N". A second source that knows of a generation of which the first has not
// told within 100 ms is appended, as "vmclock:N" after a slash. So ID has to be called again and again.
func (s *Sources) ID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all.look(s.now)
}

// Events says that a look at ID is worth it now. It holds at most one hint, is never closed, and may
// say so for nothing.
func (s *Sources) Events() <-chan struct{} { return s.events }

// Prompt says that Events tells of a clone by itself, within what the kernel needs to notice it. Without
// it, only looking finds out: then the time between two looks is how late a clone is noticed.
func (s *Sources) Prompt() bool { return s.prompt }

// Names are the sources in use.
func (s *Sources) Names() []string { return s.names }

// Primary is the source that decides, "" if there is none.
func (s *Sources) Primary() string {
	if len(s.all.members) == 0 {
		return ""
	}
	return s.all.members[0].name
}

// Page is the VMGenID page, nil where the machine has none that can be read.
func (s *Sources) Page() *Page { return s.page }

// Bump calls bump, which raises the generation of the device by one and returns the new one, in such a
// way that ID does not take it for somebody else's. That matters only where the device is a kernel
// driver's. If somebody else has bumped meanwhile, the generation is higher than by one, and a new one.
func (s *Sources) Bump(bump func() (uint32, error)) (uint32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.native == nil {
		return bump()
	}
	before := s.native.load()
	gen, err := bump()
	if err == nil && gen == before+1 {
		s.native.own.Add(1)
	}
	return gen, err
}

// poke leaves a hint, unless there is one already.
func (s *Sources) poke() {
	select {
	case s.events <- struct{}{}:
	default:
	}
}

// Close ends the event goroutines and closes the sources.
func (s *Sources) Close() error {
	var all []error
	for _, f := range s.files {
		all = append(all, f.Close())
	}
	s.running.Wait()
	for _, c := range s.close {
		all = append(all, c())
	}
	return errors.Join(all...)
}
