// Package capture reads what QEMU's filter-dump recorded outside of a guest, and tells which frames left
// a clone before it was released.
//
// The boundary is told by the guest twice: in its report, by its own clock, and in the capture, by the
// gratuitous ARP that it sends right after the gate has opened. The distance between opening and
// announcement in the report, taken back from the frame's time, is the opening in the capture's clock;
// both clocks are the emulated machine's.
package capture

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// GuestMAC is the address that QEMU gives a guest's only NIC.
var GuestMAC = net.HardwareAddr{0x52, 0x54, 0x00, 0x12, 0x34, 0x56}

// Frame is one Ethernet frame.
type Frame struct {
	Time time.Duration // of the capture's clock
	Data []byte
}

// The parts of the pcap file format (draft-ietf-opsawg-pcap, 4 and 5) that are used.
const (
	magicMicro   = 0xa1b2c3d4
	fileHeader   = 24
	recordHeader = 16
	maxFrame     = 1 << 18
)

// Ethernet types.
const (
	typeIPv4 = 0x0800
	typeARP  = 0x0806
	typeIPv6 = 0x86dd
)

// Read reads a pcap file. A frame that is cut off at the end, because QEMU was ended, is left out.
func Read(path string) ([]Frame, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	frames, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return frames, nil
}

// Parse reads the bytes of a pcap file in the host's byte order with microseconds, as QEMU writes it.
func Parse(data []byte) ([]Frame, error) {
	if len(data) < fileHeader || binary.NativeEndian.Uint32(data) != magicMicro {
		return nil, errors.New("not a pcap file of this machine")
	}
	var frames []Frame
	for data = data[fileHeader:]; len(data) >= recordHeader; {
		seconds, micros := binary.NativeEndian.Uint32(data), binary.NativeEndian.Uint32(data[4:])
		n := binary.NativeEndian.Uint32(data[8:])
		if n > maxFrame {
			return nil, fmt.Errorf("frame %d: %d bytes", len(frames), n)
		}
		if uint64(len(data)) < recordHeader+uint64(n) {
			break
		}
		at := time.Duration(seconds)*time.Second + time.Duration(micros)*time.Microsecond
		frames = append(frames, Frame{at, data[recordHeader : recordHeader+n]})
		data = data[recordHeader+n:]
	}
	return frames, nil
}

func (f Frame) etherType() uint16 {
	if len(f.Data) < 14 {
		return 0
	}
	return binary.BigEndian.Uint16(f.Data[12:])
}

// From says that the frame was sent by mac.
func (f Frame) From(mac net.HardwareAddr) bool {
	return len(f.Data) >= 14 && bytes.Equal(f.Data[6:12], mac)
}

// String is what a reader needs to tell which frame it is: when it was seen, how long it is, its beginning.
func (f Frame) String() string {
	return fmt.Sprintf("%v %d bytes %x", f.Time, len(f.Data), f.Data[:min(len(f.Data), 80)])
}

// IsIP says that the frame holds IPv4 or IPv6.
func (f Frame) IsIP() bool { return f.etherType() == typeIPv4 || f.etherType() == typeIPv6 }

// IsAnnouncement says that the frame is a gratuitous ARP: it asks for, or tells of, the sender's own
// address (RFC 5227, 3).
func (f Frame) IsAnnouncement() bool {
	return f.etherType() == typeARP && len(f.Data) >= 42 && bytes.Equal(f.Data[28:32], f.Data[38:42])
}

// ErrNoRelease is a capture without announcement: nobody can say what left before.
var ErrNoRelease = errors.New("no gratuitous ARP of the guest in the capture")

// BeforeRelease returns the frames that mac sent before the gate opened. lead is how long before its
// announcement the guest says that it opened.
func BeforeRelease(frames []Frame, mac net.HardwareAddr, lead time.Duration) ([]Frame, error) {
	for _, f := range frames {
		if f.From(mac) && f.IsAnnouncement() {
			return sentBefore(frames, mac, f.Time-lead), nil
		}
	}
	return nil, ErrNoRelease
}

func sentBefore(frames []Frame, mac net.HardwareAddr, opened time.Duration) []Frame {
	var early []Frame
	for _, f := range frames {
		if f.From(mac) && f.Time < opened {
			early = append(early, f)
		}
	}
	return early
}
