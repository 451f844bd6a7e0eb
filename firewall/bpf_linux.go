package firewall

import (
	"encoding/binary"
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
)

// The parts of union bpf_attr that the gate uses (include/uapi/linux/bpf.h,
// 6.18). Addresses are unsafe.Pointers, 64 bits wide on all we build for, so
// that Go sees them and moves no stack from under them.
type (
	bpfMapCreate struct {
		mapType, keySize, valueSize, maxEntries uint32
		_, _, _                                 uint32 // flags, inner map, NUMA node
		name                                    [16]byte
	}
	bpfMapElem struct {
		mapFD      uint32
		_          uint32 // padding
		key, value unsafe.Pointer
		_          uint64 // flags
	}
	bpfProgLoad struct {
		progType, insnCount uint32
		insns, license      unsafe.Pointer
		_, _                uint32 // log level and size
		_                   uint64 // log buffer
		_, _                uint32 // kernel version, flags
		name                [16]byte
		_                   uint32 // interface index
		attachType          uint32
	}
	bpfAttach struct {
		target, prog, attachType, flags uint32
		_                               uint32 // program to replace
	}
	bpfQuery struct {
		target, attachType uint32
		_, _               uint32 // query's flags, attachment's flags
		progIDs            unsafe.Pointer
		progCount, _       uint32
	}
	bpfGetInfo struct {
		fd, infoLen uint32
		info        unsafe.Pointer
	}
	bpfGetID struct {
		id   uint32
		_, _ uint32 // next id, flags
	}
	// bpfProgInfo is the head of struct bpf_prog_info.
	bpfProgInfo struct {
		progType, id            uint32
		tag                     [8]byte
		jitedLen, xlatedLen     uint32
		jited, xlated, loadTime uint64
		uid, mapCount           uint32
		mapIDs                  unsafe.Pointer
		name                    [16]byte
	}
)

const (
	bpfTypeArray     = 2 // BPF_MAP_TYPE_ARRAY
	bpfTypeSchedCls  = 3 // BPF_PROG_TYPE_SCHED_CLS
	bpfTypeCgroupSkb = 8 // BPF_PROG_TYPE_CGROUP_SKB
)

// bpf calls bpf(2).
func bpf(cmd int, attr unsafe.Pointer, size uintptr) (int, error) {
	n, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(cmd), uintptr(attr), size)
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}

// bpfID opens a map or a program by its id.
func bpfID(cmd int, id uint32) (int, error) {
	attr := bpfGetID{id: id}
	return bpf(cmd, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
}

func bpfName(s string) (name [16]byte) {
	copy(name[:15], s)
	return name
}

// valve is a pair of programs, one for each direction, and the word in a map
// that both obey.
type valve struct {
	mapFD int
	mapID uint32
	progs [2]program // in, out
}

type program struct {
	fd   int
	id   uint32
	name string
	tag  [8]byte // the kernel's hash of the instructions
}

func newValve(tc bool, allow []Allow) (*valve, error) {
	attr := bpfMapCreate{mapType: bpfTypeArray, keySize: 4, valueSize: 4, maxEntries: 1, name: bpfName("rouse_gate")}
	fd, err := bpf(unix.BPF_MAP_CREATE, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	if err != nil {
		return nil, describe(bpfError(err), "create map")
	}
	v := &valve{mapFD: fd, progs: [2]program{{fd: -1}, {fd: -1}}}
	for i := range v.progs {
		f := filter{out: i == 1, tc: tc, mapFD: int32(fd), allow: allow, indexOf: interfaceIndex}
		if v.progs[i], err = loadProgram(f); err != nil {
			v.Close()
			return nil, describe(bpfError(err), "load program")
		}
	}
	info, err := v.progs[0].info()
	if err != nil || len(info.maps) != 1 {
		v.Close()
		return nil, fmt.Errorf("program has %d maps: %w", len(info.maps), err)
	}
	v.mapID = info.maps[0]
	return v, nil
}

func bpfError(err error) error {
	if errors.Is(err, unix.ENOSYS) {
		return &UnsupportedError{"bpf(2)", "CONFIG_BPF_SYSCALL", err}
	}
	return err
}

// interfaceIndex is 0 for an interface that is not there: its exceptions match
// nothing then.
//
// It is asked of rtnetlink: the ioctl for it would have the kernel run modprobe
// for a name that it does not know (dev_load, net/core/dev_ioctl.c).
func interfaceIndex(name string) int {
	sock, err := openNetlink(unix.NETLINK_ROUTE)
	if err != nil {
		return 0
	}
	defer sock.Close()
	e := &encoder{}
	e.message(unix.RTM_GETLINK, unix.NLM_F_REQUEST, sock.nextSeq(), make([]byte, unix.SizeofIfInfomsg))
	e.str(unix.IFLA_IFNAME, name)
	index := 0
	err = sock.ask(e, func(m message) error {
		if m.typ == unix.RTM_NEWLINK && len(m.data) >= unix.SizeofIfInfomsg &&
			cString(attribute(m.data[unix.SizeofIfInfomsg:], unix.IFLA_IFNAME)) == name { // else an alternative name
			index = int(int32(binary.NativeEndian.Uint32(m.data[4:])))
		}
		return nil
	})
	if err != nil {
		return 0
	}
	return index
}

// loadTries: the verifier gives up with EAGAIN if a signal is pending (bpf_check,
// kernel/bpf/verifier.c), and Go's runtime sends some to preempt goroutines.
const loadTries = 32

func loadProgram(f filter) (program, error) {
	code, err := f.program()
	if err != nil {
		return program{fd: -1}, err
	}
	p := program{name: "rouse_in"}
	attr := bpfProgLoad{progType: bpfTypeCgroupSkb, insnCount: uint32(len(code) / 8)}
	if f.out {
		p.name = "rouse_out"
		attr.attachType = unix.BPF_CGROUP_INET_EGRESS
	}
	if f.tc {
		attr.progType, attr.attachType = bpfTypeSchedCls, 0
	}
	license := append([]byte("Apache-2.0"), 0)
	attr.name = bpfName(p.name)
	attr.insns, attr.license = unsafe.Pointer(&code[0]), unsafe.Pointer(&license[0])
	for range loadTries {
		if p.fd, err = bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&attr), unsafe.Sizeof(attr)); !errors.Is(err, unix.EAGAIN) {
			break
		}
	}
	if err != nil {
		return p, err
	}
	info, err := p.info()
	p.id, p.tag = info.id, info.tag
	return p, err
}

// set turns the valve: one store, seen by both programs at once.
func (v *valve) set(s State) error {
	return describe(storeState(v.mapFD, s), "update map")
}

func (v *valve) Close() error {
	err := unix.Close(v.mapFD)
	for _, p := range v.progs {
		if p.fd >= 0 {
			err = errors.Join(err, unix.Close(p.fd))
		}
	}
	return err
}

func storeState(mapFD int, s State) error {
	var key uint32
	value := uint32(s)
	attr := bpfMapElem{mapFD: uint32(mapFD), key: unsafe.Pointer(&key), value: unsafe.Pointer(&value)}
	_, err := bpf(unix.BPF_MAP_UPDATE_ELEM, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return err
}

func loadState(mapFD int) (State, error) {
	var key, value uint32
	attr := bpfMapElem{mapFD: uint32(mapFD), key: unsafe.Pointer(&key), value: unsafe.Pointer(&value)}
	_, err := bpf(unix.BPF_MAP_LOOKUP_ELEM, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return State(value), err
}

// withMap opens a map by id, a gate's of another process perhaps.
func withMap(id uint32, f func(fd int) error) error {
	fd, err := bpfID(unix.BPF_MAP_GET_FD_BY_ID, id)
	if err != nil {
		return describe(err, "open map %d", id)
	}
	defer unix.Close(fd)
	return f(fd)
}

// programInfo is what the kernel knows of a program.
type programInfo struct {
	id   uint32
	name string
	tag  [8]byte
	maps []uint32
}

func (p program) info() (programInfo, error) {
	var raw bpfProgInfo
	ids := make([]uint32, 4)
	raw.mapCount, raw.mapIDs = uint32(len(ids)), unsafe.Pointer(&ids[0])
	attr := bpfGetInfo{fd: uint32(p.fd), infoLen: uint32(unsafe.Sizeof(raw)), info: unsafe.Pointer(&raw)}
	_, err := bpf(unix.BPF_OBJ_GET_INFO_BY_FD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	if err != nil {
		return programInfo{}, os.NewSyscallError("bpf program info", err)
	}
	n := min(int(raw.mapCount), len(ids))
	return programInfo{raw.id, cString(raw.name[:]), raw.tag, ids[:n]}, nil
}

// programByID opens a program; the caller closes it.
func programByID(id uint32) (program, error) {
	fd, err := bpfID(unix.BPF_PROG_GET_FD_BY_ID, id)
	if err != nil {
		return program{fd: -1}, describe(err, "open program %d", id)
	}
	return program{fd: fd}, nil
}
