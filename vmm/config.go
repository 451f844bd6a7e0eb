package vmm

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

// Config describes a VM. Kernel is needed; everything else has a default.
type Config struct {
	Name    string // for people; "rouse" if empty
	Dir     string // sockets, console and QEMU's log; made if missing; a temporary one if empty
	Kernel  string // bzImage
	Initrd  string // "" is none
	Cmdline string

	MemoryMiB int    // 256 if zero
	CPUs      int    // 1 if zero
	CPU       string // QEMU CPU model; "max" if empty
	Accel     string // "kvm" or "tcg"; "" probes
	// Machine is "q35" if empty. Emulated, "pc" boots with the same CPU time (3.3 s both, QEMU 7.2, Linux 6.12);
	// "microvm" gains nothing that can be told from noise, and its ACPI tables describe no vmgenid.
	Machine string
	GUID    string // VM generation id, or "auto" for a random one; "" is no vmgenid device

	Forwards []Forward // TCP, host to guest
	Outbound bool      // let the guest reach out through the user-mode network; else it reaches nothing
	// Tap is a TAP device of the host that the guest's NIC is bound to in place of the user-mode network: it
	// must exist and be the caller's to open. Forwards are not possible then.
	Tap     string
	Capture string // pcap of every packet that the guest sends or gets, "" is none

	// Incoming is the snapshot to start from. All of the machine (memory, CPUs, devices) must be as it
	// was; kernel, initrd and command line are in the snapshot's memory and not looked at again.
	Incoming string
	// MapMemory keeps the guest's memory in a file, Dir/memory, so that a snapshot need not copy it
	// and clones map it: N clones cost one copy in the page cache and what each of them changes.
	MapMemory bool
	Disks     []Disk   // virtio-blk devices, in this order
	Paused    bool     // do not run the guest: Cont does
	Detach    bool     // the VM outlives this process
	Extra     []string // more QEMU arguments, as they are

	// hub puts a hub between the NIC and the user-mode network, so that the latter can be taken away.
	hub bool
	// check looks at QEMU before the snapshot is loaded; nil is no check.
	check func(context.Context, *VM) error
}

// Disk is a disk image of the guest.
type Disk struct {
	Path     string `json:"path"`
	Format   string `json:"format"` // raw or qcow2
	ReadOnly bool   `json:"read-only,omitempty"`

	// overlay leaves the file as it is: what the guest writes goes to the run folder.
	overlay bool
}

// Forward is a TCP port of the host that leads into the guest.
type Forward struct {
	HostIP    string // "127.0.0.1" if empty
	HostPort  uint16 // 0 is any that is free: VM.Forwards tells which
	GuestPort uint16
}

// Files in the run directory. QEMU runs with it as its working directory and gets these names relative, so
// that a long path does not exceed a socket address's 108 bytes.
const (
	qmpSocket     = "qmp.sock"     // for other tools; this package's own monitor is a socket pair
	controlSocket = "control.sock" // host's end of the guest agent port
	consoleFile   = "console.log"
	qemuLog       = "qemu.log"
	memoryFile    = "memory"
)

// memorySuffix names the memory file that stands beside a snapshot of a VM with MapMemory.
const memorySuffix = ".memory"

// monitorFD is where QEMU finds its end of our monitor's socket pair: the first of ExtraFiles.
const monitorFD = 3

// withDefaults fills in what is empty and makes paths absolute, as QEMU runs elsewhere.
func (c Config) withDefaults() (Config, error) {
	if c.Kernel == "" {
		return c, fmt.Errorf("vm %q: no kernel", c.Name)
	}
	def(&c.Name, "rouse")
	def(&c.MemoryMiB, 256)
	def(&c.CPUs, 1)
	def(&c.CPU, "max")
	def(&c.Machine, "q35")
	for _, p := range []*string{&c.Dir, &c.Kernel, &c.Initrd, &c.Capture, &c.Incoming} {
		if *p == "" {
			continue
		}
		abs, err := filepath.Abs(*p)
		if err != nil {
			return c, err
		}
		*p = abs
	}
	for _, f := range c.Forwards {
		if f.GuestPort == 0 {
			return c, fmt.Errorf("vm %q: forward of host port %d: no guest port", c.Name, f.HostPort)
		}
	}
	if c.Tap != "" && len(c.Forwards) > 0 {
		return c, fmt.Errorf("vm %q: forwards need the user-mode network, its NIC is bound to the TAP device %s", c.Name, c.Tap)
	}
	return c, c.absoluteDisks()
}

// absoluteDisks checks the disks and leaves the caller's slice as it was.
func (c *Config) absoluteDisks() error {
	c.Disks = append([]Disk(nil), c.Disks...)
	for i := range c.Disks {
		d := &c.Disks[i]
		if d.Format != "raw" && d.Format != "qcow2" {
			return fmt.Errorf("vm %q: disk %s: format %q; use raw or qcow2", c.Name, d.Path, d.Format)
		}
		abs, err := filepath.Abs(d.Path)
		if err != nil {
			return err
		}
		d.Path = abs
	}
	return nil
}

func def[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// args renders the command line. c has its defaults; memory is the file to map, "" for none.
func (c Config) args(memory string) []string {
	a := []string{
		"-name", escape(c.Name), "-no-user-config", "-nodefaults", "-display", "none", "-no-reboot",
		"-machine", c.Machine, "-accel", c.Accel, "-cpu", c.CPU,
		"-smp", fmt.Sprint(c.CPUs), "-m", fmt.Sprintf("%dM", c.MemoryMiB),
		"-kernel", c.Kernel, "-append", c.Cmdline,
		"-chardev", fmt.Sprintf("socket,id=monitor,fd=%d", monitorFD), "-mon", "chardev=monitor,mode=control",
		"-chardev", "socket,id=qmp,server=on,wait=off,path=" + qmpSocket, "-mon", "chardev=qmp,mode=control",
		"-chardev", "file,id=console,path=" + consoleFile, "-serial", "chardev:console",
		"-chardev", "socket,id=agent,server=on,wait=off,path=" + controlSocket,
		"-device", "virtio-serial-pci", "-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
	}
	a = append(append(a, c.netArgs()...), "-device", "virtio-net-pci,netdev=net0,romfile=")
	if c.Initrd != "" {
		a = append(a, "-initrd", c.Initrd)
	}
	for i, d := range c.Disks {
		a = append(a, d.args(i)...)
	}
	if c.GUID != "" {
		a = append(a, "-device", "vmgenid,guid="+c.GUID)
	}
	if c.Capture != "" {
		a = append(a, "-object", "filter-dump,id=capture,netdev=net0,file="+escape(c.Capture))
	}
	if memory != "" {
		a = append(a, c.memoryArgs(memory)...)
	}
	if c.Incoming != "" {
		a = append(a, "-incoming", "defer")
	}
	if c.Paused {
		a = append(a, "-S")
	}
	return append(a, c.Extra...)
}

// args names the disk by its index, so that the devices of a clone have the places of its source.
func (d Disk) args(i int) []string {
	mode := "off"
	if d.ReadOnly {
		mode = "on"
	}
	return []string{
		"-drive", fmt.Sprintf("if=none,id=disk%d,format=%s,read-only=%s,file=%s", i, d.Format, mode, escape(d.Path)),
		"-device", fmt.Sprintf("virtio-blk-pci,drive=disk%d,serial=disk%d", i, i),
	}
}

// memoryArgs maps a file as the guest's memory: shared while a snapshot is to be made of it, private (copied
// on write) for a clone. Its name is the one that memory has without a file, and it is in the snapshot's
// stream: so a snapshot of a mapped clone can be restored without a file.
func (c Config) memoryArgs(path string) []string {
	share := "on"
	if c.Incoming != "" {
		share = "off"
	}
	return []string{
		"-object", fmt.Sprintf("memory-backend-file,id=pc.ram,size=%dM,share=%s,mem-path=%s", c.MemoryMiB, share, escape(path)),
		"-machine", "memory-backend=pc.ram",
	}
}

// netArgs make the backend net0 of the NIC.
func (c Config) netArgs() []string {
	if !c.hub || c.Tap != "" {
		return []string{"-netdev", c.netdev("net0")}
	}
	return []string{"-netdev", c.netdev(userNetwork), "-netdev", "hubport,hubid=0,id=port0,netdev=" + userNetwork, "-netdev", "hubport,hubid=0,id=net0"}
}

// userNetwork is the user-mode network behind a hub.
const userNetwork = "user0"

// netdev is slirp with everything refused but the forwards: restrict does not touch those.
func (c Config) netdev(id string) string {
	if c.Tap != "" {
		// Without virtio's header, as the user-mode network is: a snapshot made with the one loads with the other.
		return "tap,id=" + id + ",script=no,downscript=no,vnet_hdr=off,ifname=" + escape(c.Tap)
	}
	var b strings.Builder
	b.WriteString("user,id=" + id)
	if !c.Outbound {
		b.WriteString(",restrict=on")
	}
	for _, f := range c.Forwards {
		def(&f.HostIP, "127.0.0.1")
		fmt.Fprintf(&b, ",hostfwd=tcp:%s:%d-:%d", f.HostIP, f.HostPort, f.GuestPort)
	}
	return b.String()
}

// parseForwards reads "info usernet" of the human monitor, the only place that tells a chosen port:
//
//	Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ
//	TCP[HOST_FORWARD]  14       127.0.0.1 40123       10.0.2.15    80     0     0
func parseForwards(info string) []Forward {
	var all []Forward
	for line := range strings.Lines(info) {
		f := strings.Fields(line)
		if len(f) < 6 || f[0] != "TCP[HOST_FORWARD]" {
			continue
		}
		host, err1 := strconv.ParseUint(f[3], 10, 16)
		guest, err2 := strconv.ParseUint(f[5], 10, 16)
		if err1 == nil && err2 == nil {
			all = append(all, Forward{f[2], uint16(host), uint16(guest)})
		}
	}
	return all
}

// escape doubles commas, which end a value in QEMU's option syntax.
func escape(s string) string { return strings.ReplaceAll(s, ",", ",,") }
