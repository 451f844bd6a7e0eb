package service

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"rouse/internal/definition"
	"rouse/internal/fmt"
)

// dropBounding removes all capabilities but keep from the bounding set, for good. The kernel may know
// more of them than we do; EINVAL tells where its end is.
func dropBounding(keep []string) error {
	var kept [64]bool
	for _, name := range keep {
		kept[definition.Capability(name)] = true // checked by New
	}
	for n := range kept {
		if kept[n] {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(n), 0, 0, 0)
		if err == unix.EINVAL {
			return nil
		}
		if err != nil {
			return fmt.Errorf("drop capability %d: %w", n, err)
		}
	}
	return nil
}

// setCapabilities makes keep permitted, inheritable and effective, and ambient, so that a program without file
// capabilities has them after exec as any user (capabilities(7)).
func setCapabilities(keep []string) error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	for _, name := range keep {
		n := definition.Capability(name)
		bit := uint32(1) << (n % 32)
		data[n/32].Effective |= bit
		data[n/32].Permitted |= bit
		data[n/32].Inheritable |= bit
	}
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		return about("set capabilities", "", err)
	}
	for _, name := range keep {
		n := definition.Capability(name)
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(n), 0, 0); err != nil {
			return about("raise capability", name, err)
		}
	}
	return nil
}

func setgroups(groups []uint32) error {
	var p unsafe.Pointer
	if len(groups) > 0 {
		p = unsafe.Pointer(&groups[0])
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(p), 0); e != 0 {
		return e
	}
	return nil
}

// denied are the calls that the "basic" profile answers with EPERM: those by which a service could change
// the guest's kernel, clock or mounts, or reach into other processes. It denies rather than kills,
// since programs probe for some of them and go on without.
var denied = []uint32{
	unix.SYS_REBOOT, unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD,
	unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE,
	unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_ACCT,
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_OPEN_TREE, unix.SYS_MOVE_MOUNT,
	unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR, unix.SYS_SETNS,
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD,
	unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PIDFD_GETFD, unix.SYS_KCMP,
	unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_ADJTIMEX, unix.SYS_CLOCK_ADJTIME,
	unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEYCTL,
	unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_QUOTACTL, unix.SYS_LOOKUP_DCOOKIE, unix.SYS_VHANGUP,
	unix.SYS_SYSLOG, unix.SYS_FANOTIFY_INIT,
}

// Offsets in struct seccomp_data (include/uapi/linux/seccomp.h) and the flag of x32 calls, which
// are the same calls under other numbers (arch/x86/include/uapi/asm/unistd.h).
const (
	seccompNr   = 0
	seccompArch = 4
	x32Bit      = 0x40000000
)

// basicFilter denies calls of a foreign architecture, x32 calls and those in denied.
func basicFilter(arch uint32, calls []uint32) []unix.SockFilter {
	const (
		load  = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		least = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
		give  = unix.BPF_RET | unix.BPF_K
	)
	f := []unix.SockFilter{
		{Code: load, K: seccompArch},
		{Code: equal, K: arch, Jt: 1},
		{Code: give, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: load, K: seccompNr},
		{Code: least, K: x32Bit, Jt: uint8(len(calls) + 1)},
	}
	for i, nr := range calls {
		f = append(f, unix.SockFilter{Code: equal, K: nr, Jt: uint8(len(calls) - i)})
	}
	return append(f,
		unix.SockFilter{Code: give, K: unix.SECCOMP_RET_ALLOW},
		unix.SockFilter{Code: give, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)})
}

// filter installs the seccomp profile for this thread and all that comes of it.
func (t *shimTask) filter() error {
	if t.Confine.Seccomp != "basic" {
		return nil
	}
	prog := basicFilter(seccompNative, denied)
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	_, _, e := unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&fprog)), 0, 0, 0)
	if e != 0 {
		return about("seccomp (CONFIG_SECCOMP_FILTER)", "", e)
	}
	return nil
}
