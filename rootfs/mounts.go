package rootfs

import (
	"strings"

	"rouse/internal/fmt"
)

// Mount is one row of a mount table.
type Mount struct {
	Source, Target, Type string
	Flags                MountFlag
	Options              string    // comma separated, as the file system's own documentation has them
	Mode                 uint32    // permissions of the target folder if it has to be made
	Magic                int64     // what statfs(2) calls this type: tells "is there already"; 0: any mount at the target will do
	MayLack              bool      // a kernel without this type is fine
	NoFail               bool      // for MountExtra: go on without it
	Why                  string    // what needs it, for people who read the table or an error
	_                    [0]func() // never compared by ==, the code for which would be 2 KB of /init
}

// MountFlag is a set of MS_ flags of mount(2).
type MountFlag uintptr

// The flags of linux/include/uapi/linux/mount.h (v6.12, lines 13-36) that the tables use. They are part of the ABI
// and the same on every architecture; written here so that the tables are values on any host.
const (
	ReadOnly    MountFlag = 1
	NoSetuid    MountFlag = 2
	NoDevices   MountFlag = 4
	NoExec      MountFlag = 8
	Synchronous MountFlag = 16
	Remount     MountFlag = 32
	NoSymfollow MountFlag = 256
	NoAtime     MountFlag = 1024
	NoDirAtime  MountFlag = 2048
	Bind        MountFlag = 4096
	Recursive   MountFlag = 16384
	Relatime    MountFlag = 1 << 21
	StrictAtime MountFlag = 1 << 24
	LazyTime    MountFlag = 1 << 25
)

// String is the row as a line of fstab(5).
func (m *Mount) String() string {
	opts := append(m.Flags.names(), strings.FieldsFunc(m.Options, func(r rune) bool { return r == ',' })...)
	if len(opts) == 0 {
		opts = []string{"defaults"}
	}
	return fmt.Sprintf("%s %s %s %s", m.Source, m.Target, m.Type, strings.Join(opts, ","))
}

// flagNames are the options of mount(8) that are flags of mount(2), each with the option that takes it back.
var flagNames = []struct {
	name, opposite string
	flag           MountFlag
}{
	{"ro", "rw", ReadOnly}, {"nosuid", "suid", NoSetuid}, {"nodev", "dev", NoDevices}, {"noexec", "exec", NoExec},
	{"sync", "async", Synchronous}, {"nosymfollow", "symfollow", NoSymfollow}, {"noatime", "atime", NoAtime},
	{"nodiratime", "diratime", NoDirAtime}, {"bind", "", Bind}, {"rbind", "", Bind | Recursive}, {"relatime", "norelatime", Relatime},
	{"strictatime", "nostrictatime", StrictAtime}, {"lazytime", "nolazytime", LazyTime},
}

func (f MountFlag) names() []string {
	var out []string
	for _, n := range flagNames {
		if n.flag&(n.flag-1) == 0 && f&n.flag != 0 {
			out = append(out, n.name)
		}
	}
	return out
}

// Magic numbers of linux/include/uapi/linux/magic.h (v6.12).
const (
	magicTmpfs    = 0x01021994 // also devtmpfs, which is a tmpfs (or ramfs) underneath
	magicProc     = 0x9fa0
	magicSysfs    = 0x62656572
	magicCgroup2  = 0x63677270
	magicDevpts   = 0x1cd1
	magicFuseCtl  = 0x65735543
	modeDirectory = 0o755
)

// EarlyMounts is what MountEarly mounts, in this order.
func EarlyMounts() []Mount {
	return []Mount{
		// First, so that /dev/console and /dev/kmsg can carry the reason if any later row fails. Any mount will
		// do: a container runtime puts a small tmpfs of its own here, and its devices are the ones to use.
		{Source: "dev", Target: "/dev", Type: "devtmpfs", Flags: NoSetuid | NoExec, Options: "mode=0755", Mode: modeDirectory,
			Why: "devices: console, fuse, mem, virtio ports"},
		// Before everything that reads /proc/cmdline, /proc/modules or /proc/self. Not hidepid: rouse looks at every process.
		{Source: "proc", Target: "/proc", Type: "proc", Flags: NoSetuid | NoDevices | NoExec, Mode: modeDirectory, Magic: magicProc,
			Why: "kernel command line, sysctl, states of threads (settle), owners of sockets (drain)"},
		// Before cgroup2 and fusectl, whose mount points the kernel makes inside it.
		{Source: "sysfs", Target: "/sys", Type: "sysfs", Flags: NoSetuid | NoDevices | NoExec, Mode: modeDirectory, Magic: magicSysfs,
			Why: "ACPI tables (VMGenID), modalias, names of virtio ports"},
		// nsdelegate: a service in a cgroup namespace of its own cannot leave or loosen what rouse set for it.
		{Source: "cgroup2", Target: "/sys/fs/cgroup", Type: "cgroup2", Flags: NoSetuid | NoDevices | NoExec, Options: "nsdelegate",
			Mode: modeDirectory, Magic: magicCgroup2, Why: "the freezer, limits, and the cgroup BPF gate"},
		// After /dev, whose folder it is. gid=5 is "tty" everywhere; ptmxmode because the default 0000 locks out services.
		{Source: "devpts", Target: "/dev/pts", Type: "devpts", Flags: NoSetuid | NoExec, Options: "mode=0620,gid=5,ptmxmode=0666",
			Mode: modeDirectory, Magic: magicDevpts, MayLack: true, Why: "pseudo terminals"},
		{Source: "shm", Target: "/dev/shm", Type: "tmpfs", Flags: NoSetuid | NoDevices, Options: "mode=1777", Mode: 0o1777, Magic: magicTmpfs,
			Why: "POSIX shared memory and semaphores"},
		// Before any socket or pid file; never on disk, so that nothing of an earlier boot is found there.
		{Source: "run", Target: "/run", Type: "tmpfs", Flags: NoSetuid | NoDevices, Options: "mode=0755", Mode: modeDirectory,
			Why: "the control socket, notify sockets, run-time files"},
		{Source: "tmp", Target: "/tmp", Type: "tmpfs", Flags: NoSetuid | NoDevices, Options: "mode=1777", Mode: 0o1777,
			Why: "temporary files, bounded to half of memory"},
	}
}

// LateMounts is what MountLate mounts: types that a module may bring.
func LateMounts() []Mount {
	return []Mount{
		// The kernel makes the mount point when fuse is there; without fuse there is nothing to watch.
		{Source: "fusectl", Target: "/sys/fs/fuse/connections", Type: "fusectl", Flags: NoSetuid | NoDevices | NoExec, Magic: magicFuseCtl,
			MayLack: true, Why: "to see and end an aborted /dev/sysgenid connection"},
	}
}
