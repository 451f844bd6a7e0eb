package sysgenid

import (
	"encoding/binary"
	"errors"
	"syscall"
)

// The part of the FUSE protocol that one regular file needs. Layouts, numbers
// and flags are those of Linux include/uapi/linux/fuse.h, protocol 7.40 (Linux
// 6.9); all integers are in native byte order.

// opcode is the kind of a request (enum fuse_opcode).
type opcode uint32

const (
	opForget      opcode = 2
	opGetattr     opcode = 3
	opSetattr     opcode = 4
	opOpen        opcode = 14
	opRead        opcode = 15
	opWrite       opcode = 16
	opStatfs      opcode = 17
	opRelease     opcode = 18
	opInit        opcode = 26
	opAccess      opcode = 34
	opInterrupt   opcode = 36
	opDestroy     opcode = 38
	opIoctl       opcode = 39
	opPoll        opcode = 40
	opBatchForget opcode = 42
)

// Notifications: sent with unique 0 and the code in the place of the error.
const (
	notifyPoll  = 1
	notifyStore = 4
)

// Flags of INIT that we look at. FUSE_DIRECT_IO_ALLOW_MMAP must never be
// negotiated (writable descriptors could then map the page writable), nor
// FUSE_ATOMIC_O_TRUNC (any open with O_TRUNC would drop the mapped page without
// asking us).
const (
	initAbortError  uint64 = 1 << 21
	initExt         uint64 = 1 << 30
	initPassthrough uint64 = 1 << 37
)

// Flags of an OPEN's answer.
//
// Every open but those of passthrough, which does not allow it, is a stream: otherwise the VFS takes the file position's lock
// around read and write, and a thread blocked in read would block, beyond the
// reach of signals, who wants to acknowledge through the same description.
const (
	fopenDirectIO       uint32 = 1 << 0
	fopenKeepCache      uint32 = 1 << 1
	fopenStream         uint32 = 1 << 4
	fopenNoFlush        uint32 = 1 << 5
	fopenParallelWrites uint32 = 1 << 6
	fopenPassthrough    uint32 = 1 << 7
)

const (
	readLockOwner uint32 = 1 << 1 // FUSE_READ_LOCKOWNER: a read(2), not a page fault
	pollSchedule  uint32 = 1 << 0 // FUSE_POLL_SCHEDULE_NOTIFY
	setattrSize   uint32 = 1 << 3 // FATTR_SIZE
	setattrIDs    uint32 = 1<<0 | 1<<1 | 1<<2
	rootNode      uint64 = 1
	requestHeader        = 40
	answerHeader         = 16
	maxWrite             = PageSize
	requestBuffer        = 8192 // FUSE_MIN_READ_BUFFER, more than a header and maxWrite need
	fuseMajor            = 7
	fuseMinor            = 40
	minorDropping        = 40      // from this on (Linux 6.9) a direct write drops the file's cached pages
	attrSeconds          = 1 << 30 // attributes never change; the kernel need not ask again
	pollIn               = 0x01
	pollRdNorm           = 0x40
	sizeofInitIn         = 16 // the part before flags2, which older kernels end with
	sizeofReadIn         = 40
	sizeofIoctlIn        = 32
	sizeofPollIn         = 24
	sizeofOpenIn         = 8
	sizeofSetattr        = 88
)

// errShort says that bytes end before the layout does.
var errShort error = fault("short FUSE message")

// request is a FUSE request's header, with the bytes that follow it.
type request struct {
	Op     opcode
	Unique uint64
	UID    uint32
	PID    uint32 // of the calling thread, in the mounter's pid namespace
	Body   []byte
}

func u32(b []byte, at int) uint32 { return binary.NativeEndian.Uint32(b[at:]) }
func u64(b []byte, at int) uint64 { return binary.NativeEndian.Uint64(b[at:]) }

// parseRequest reads struct fuse_in_header { u32 len, opcode; u64 unique,
// nodeid; u32 uid, gid, pid; u16 total_extlen, padding }.
func parseRequest(b []byte) (request, error) {
	if len(b) < requestHeader {
		return request{}, errShort
	}
	n := u32(b, 0)
	if int64(n) != int64(len(b)) {
		return request{}, errors.New("FUSE message of another length than it says")
	}
	return request{
		Op:     opcode(u32(b, 4)),
		Unique: u64(b, 8),
		UID:    u32(b, 24),
		PID:    u32(b, 32),
		Body:   b[requestHeader:],
	}, nil
}

// initIn is struct fuse_init_in { u32 major, minor, max_readahead, flags,
// flags2; u32 unused[11] }.
type initIn struct {
	Major, Minor uint32
	Flags        uint64
}

func parseInit(b []byte) (initIn, error) {
	if len(b) < sizeofInitIn {
		return initIn{}, errShort
	}
	in := initIn{Major: u32(b, 0), Minor: u32(b, 4), Flags: uint64(u32(b, 12))}
	if in.Flags&initExt != 0 && len(b) >= sizeofInitIn+4 {
		in.Flags |= uint64(u32(b, 16)) << 32
	}
	return in, nil
}

// appendInit appends struct fuse_init_out { u32 major, minor, max_readahead,
// flags; u16 max_background, congestion_threshold; u32 max_write, time_gran;
// u16 max_pages, map_alignment; u32 flags2, max_stack_depth, unused[6] }.
func appendInit(b []byte, in initIn, passthrough bool) []byte {
	flags := in.Flags & initAbortError
	depth := uint32(0)
	if passthrough {
		flags |= initExt | initPassthrough
		depth = 1 // the memfd lies on tmpfs, which is not stacked
	}
	ne := binary.NativeEndian
	b = ne.AppendUint32(b, fuseMajor)
	b = ne.AppendUint32(b, min(in.Minor, fuseMinor))
	b = ne.AppendUint32(b, PageSize)
	b = ne.AppendUint32(b, uint32(flags))
	b = ne.AppendUint32(b, 0) // the kernel's own limits for background requests
	b = ne.AppendUint32(b, maxWrite)
	b = ne.AppendUint32(b, 1)
	b = ne.AppendUint32(b, 0)
	b = ne.AppendUint32(b, uint32(flags>>32))
	b = ne.AppendUint32(b, depth)
	return append(b, make([]byte, 24)...)
}

// readIn is struct fuse_read_in and fuse_write_in { u64 fh, offset; u32 size,
// read_flags; u64 lock_owner; u32 flags, padding }.
type readIn struct {
	Handle    uint64
	Offset    uint64
	Size      uint32
	ReadFlags uint32
	FileFlags uint32 // the description's O_ flags at the time of the call
}

func parseRead(b []byte) (readIn, error) {
	if len(b) < sizeofReadIn {
		return readIn{}, errShort
	}
	return readIn{u64(b, 0), u64(b, 8), u32(b, 16), u32(b, 20), u32(b, 32)}, nil
}

// parseWrite also returns the bytes written.
func parseWrite(b []byte) (readIn, []byte, error) {
	in, err := parseRead(b)
	if err != nil {
		return in, nil, err
	}
	data := b[sizeofReadIn:]
	if int64(len(data)) < int64(in.Size) {
		return in, nil, errShort
	}
	return in, data[:in.Size], nil
}

// ioctlIn is struct fuse_ioctl_in { u64 fh; u32 flags, cmd; u64 arg; u32
// in_size, out_size }.
type ioctlIn struct {
	Handle uint64
	Cmd    uint32
	Arg    uint64
}

func parseIoctl(b []byte) (ioctlIn, error) {
	if len(b) < sizeofIoctlIn {
		return ioctlIn{}, errShort
	}
	return ioctlIn{u64(b, 0), u32(b, 12), u64(b, 16)}, nil
}

// pollReq is struct fuse_poll_in { u64 fh, kh; u32 flags, events }.
type pollReq struct {
	Handle uint64
	Key    uint64 // names the file in a FUSE_NOTIFY_POLL
	Flags  uint32
}

func parsePoll(b []byte) (pollReq, error) {
	if len(b) < sizeofPollIn {
		return pollReq{}, errShort
	}
	return pollReq{u64(b, 0), u64(b, 8), u32(b, 16)}, nil
}

// parseOpen returns the O_ flags of struct fuse_open_in { u32 flags, open_flags }.
func parseOpen(b []byte) (uint32, error) {
	if len(b) < sizeofOpenIn {
		return 0, errShort
	}
	return u32(b, 0), nil
}

// parseFirst returns the first u64, which is the file handle of a RELEASE and
// the request meant by an INTERRUPT.
func parseFirst(b []byte) (uint64, error) {
	if len(b) < 8 {
		return 0, errShort
	}
	return u64(b, 0), nil
}

// parseSetattr returns the valid mask of struct fuse_setattr_in { u32 valid, ... }.
func parseSetattr(b []byte) (uint32, error) {
	if len(b) < sizeofSetattr {
		return 0, errShort
	}
	return u32(b, 0), nil
}

// appendAnswer appends struct fuse_out_header { u32 len; s32 error; u64 unique }.
func appendAnswer(b []byte, unique uint64, errno syscall.Errno, payload int) []byte {
	b = binary.NativeEndian.AppendUint32(b, uint32(answerHeader+payload))
	b = binary.NativeEndian.AppendUint32(b, uint32(-int32(errno)))
	return binary.NativeEndian.AppendUint64(b, unique)
}

// appendNotify appends the header of a notification.
func appendNotify(b []byte, code uint32, payload int) []byte {
	b = binary.NativeEndian.AppendUint32(b, uint32(answerHeader+payload))
	b = binary.NativeEndian.AppendUint32(b, code)
	return binary.NativeEndian.AppendUint64(b, 0)
}

// appendOpen appends struct fuse_open_out { u64 fh; u32 open_flags; s32 backing_id }.
func appendOpen(b []byte, handle uint64, flags uint32, backing int32) []byte {
	b = binary.NativeEndian.AppendUint64(b, handle)
	b = binary.NativeEndian.AppendUint32(b, flags)
	return binary.NativeEndian.AppendUint32(b, uint32(backing))
}

// appendIoctl appends struct fuse_ioctl_out { s32 result; u32 flags, in_iovs, out_iovs }.
func appendIoctl(b []byte) []byte { return append(b, make([]byte, 16)...) }

// appendPair appends two u32: a WRITE's answer { u32 size, padding } and a
// POLL's { u32 revents, padding }.
func appendPair(b []byte, first uint32) []byte {
	b = binary.NativeEndian.AppendUint32(b, first)
	return binary.NativeEndian.AppendUint32(b, 0)
}

// appendAttr appends struct fuse_attr_out { u64 attr_valid; u32
// attr_valid_nsec, dummy } and struct fuse_attr { u64 ino, size, blocks, atime,
// mtime, ctime; u32 atimensec, mtimensec, ctimensec, mode, nlink, uid, gid,
// rdev, blksize, flags }.
func appendAttr(b []byte, seconds int64) []byte {
	ne := binary.NativeEndian
	b = ne.AppendUint64(b, attrSeconds)
	b = ne.AppendUint64(b, 0)
	at := uint64(seconds)
	for _, v := range [...]uint64{rootNode, PageSize, 0, at, at, at} {
		b = ne.AppendUint64(b, v)
	}
	for _, v := range [...]uint32{0, 0, 0, syscall.S_IFREG | 0o666, 1, 0, 0, 0, PageSize, 0} {
		b = ne.AppendUint32(b, v)
	}
	return b
}

// appendStatfs appends struct fuse_statfs_out { struct fuse_kstatfs { u64
// blocks, bfree, bavail, files, ffree; u32 bsize, namelen, frsize, padding,
// spare[6] } }.
func appendStatfs(b []byte) []byte {
	for _, v := range [...]uint64{1, 0, 0, 1, 0} {
		b = binary.NativeEndian.AppendUint64(b, v)
	}
	for _, v := range [...]uint32{PageSize, 255, PageSize} {
		b = binary.NativeEndian.AppendUint32(b, v)
	}
	return append(b, make([]byte, 28)...)
}

// appendStore appends struct fuse_notify_store_out { u64 nodeid, offset; u32
// size, padding } and a whole page that begins with the counter: a whole one,
// because the kernel takes a page that it did not have as valid only then.
func appendStore(b []byte, counter, bits uint32) []byte {
	ne := binary.NativeEndian
	b = ne.AppendUint64(b, rootNode)
	b = ne.AppendUint64(b, 0)
	b = ne.AppendUint32(b, PageSize)
	b = ne.AppendUint32(b, 0)
	return appendPage(b, counter, bits, PageSize)
}

// appendPage appends the first n bytes of the page.
func appendPage(b []byte, counter, bits uint32, n int) []byte {
	start := len(b)
	b = append(b, make([]byte, max(n, 8))...)
	binary.NativeEndian.PutUint32(b[start:], counter)
	binary.NativeEndian.PutUint32(b[start+4:], bits)
	return b[:start+n]
}
