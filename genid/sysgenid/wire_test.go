package sysgenid

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// message makes a request as the kernel does.
func message(op opcode, body []byte) []byte {
	ne := binary.NativeEndian
	b := ne.AppendUint32(nil, uint32(requestHeader+len(body)))
	b = ne.AppendUint32(b, uint32(op))
	b = ne.AppendUint64(b, 77)
	b = ne.AppendUint64(b, rootNode)
	for _, v := range [...]uint32{1000, 1000, 4321, 0} {
		b = ne.AppendUint32(b, v)
	}
	return append(b, body...)
}

func TestParseRequest(t *testing.T) {
	r, err := parseRequest(message(opRead, []byte("body")))
	if err != nil || r.Op != opRead || r.Unique != 77 || r.UID != 1000 || r.PID != 4321 || string(r.Body) != "body" {
		t.Errorf("%+v, %v", r, err)
	}
	for n := range requestHeader {
		if _, err := parseRequest(make([]byte, n)); err == nil {
			t.Errorf("%d bytes were taken for a request", n)
		}
	}
}

func TestSizes(t *testing.T) {
	for _, row := range []struct {
		name string
		got  []byte
		want int
	}{
		{"fuse_out_header", appendAnswer(nil, 1, 0, 0), 16},
		{"fuse_init_out", appendInit(nil, initIn{}, true), 64},
		{"fuse_open_out", appendOpen(nil, 1, 2, 3), 16},
		{"fuse_attr_out", appendAttr(nil, 5), 104},
		{"fuse_statfs_out", appendStatfs(nil), 80},
		{"fuse_ioctl_out", appendIoctl(nil), 16},
		{"fuse_write_out", appendPair(nil, 4), 8},
		{"fuse_notify_store_out and page", appendStore(nil, 1, 0), 24 + PageSize},
		{"part of the page", appendPage(nil, 1, 0, 2), 2},
		{"nothing of the page", appendPage(nil, 1, 0, 0), 0},
	} {
		if len(row.got) != row.want {
			t.Errorf("%s has %d bytes, want %d", row.name, len(row.got), row.want)
		}
	}
}

// TestNegotiation: what must never be agreed to is not, whatever is offered.
func TestNegotiation(t *testing.T) {
	const allowMmap, atomicTruncate, writeback = 1 << 36, 1 << 3, 1 << 16
	for _, through := range []bool{false, true} {
		b := appendInit(nil, initIn{Major: 7, Minor: 99, Flags: 1<<64 - 1}, through)
		flags := uint64(u32(b, 12)) | uint64(u32(b, 32))<<32
		if flags&(allowMmap|atomicTruncate|writeback) != 0 {
			t.Errorf("agreed to %#x", flags)
		}
		if (flags&initPassthrough != 0) != through {
			t.Errorf("passthrough %v, flags %#x", through, flags)
		}
		if u32(b, 4) != fuseMinor {
			t.Errorf("minor %d", u32(b, 4))
		}
	}
}

// FuzzRequest: bytes of any kind are an error or a request, and what a request
// says of its own length is true.
func FuzzRequest(f *testing.F) {
	for _, op := range []opcode{opInit, opOpen, opRead, opWrite, opIoctl, opPoll, opInterrupt, opSetattr} {
		f.Add(message(op, make([]byte, 8)))
		f.Add(message(op, bytes.Repeat([]byte{0xff}, 96)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRequest(b)
		if err != nil {
			return
		}
		if len(r.Body)+requestHeader != len(b) {
			t.Errorf("body of %d bytes in a message of %d", len(r.Body), len(b))
		}
		in, data, err := parseWrite(r.Body)
		if err == nil && len(data) != int(in.Size) {
			t.Errorf("wrote %d bytes of %d", len(data), in.Size)
		}
		if i, err := parseInit(r.Body); err == nil {
			_ = appendInit(nil, i, true)
		}
		_, _ = parseIoctl(r.Body)
		_, _ = parsePoll(r.Body)
		_, _ = parseOpen(r.Body)
		_, _ = parseFirst(r.Body)
		_, _ = parseSetattr(r.Body)
	})
}
