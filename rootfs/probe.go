package rootfs

import (
	"bytes"
	"encoding/binary"
	"io"
	"strings"

	"rouse/internal/fmt"
)

// Filesystem is what a block device says it holds.
type Filesystem struct {
	Type        string // as mount(2) names it; "" if nothing known was found
	Label, UUID string // "" if it has none; UUID as blkid(8) writes it
}

// superblock says where a file system's superblock keeps what. Offsets are from the start of the device.
type superblock struct {
	kind               string
	magicAt            int64
	magic              string
	uuidAt             int64 // 0: has none
	uuidLen            int
	labelAt, labelSize int64 // labelSize 0: has none
}

// superblocks are taken from linux v6.12: fs/ext4/ext4.h struct ext4_super_block (at 1024), fs/squashfs/squashfs_fs.h,
// fs/erofs/erofs_fs.h struct erofs_super_block (at 1024), fs/xfs/libxfs/xfs_format.h struct xfs_dsb,
// fs/btrfs/fs.h struct btrfs_super_block (at 65536); ISO 9660's primary descriptor (ECMA-119, 8.4, at 32768);
// FAT's boot sector (Microsoft's fatgen103).
var superblocks = []superblock{
	{"ext4", 1024 + 0x38, "\x53\xef", 1024 + 0x68, 16, 1024 + 0x78, 16}, // the driver ext4 mounts ext2 and ext3 as well
	{"squashfs", 0, "hsqs", 0, 0, 0, 0},
	{"erofs", 1024, "\xe2\xe1\xf5\xe0", 1024 + 48, 16, 1024 + 64, 16},
	{"xfs", 0, "XFSB", 32, 16, 108, 12},
	{"btrfs", 65536 + 0x40, "_BHRfS_M", 65536 + 0x20, 16, 65536 + 0x12b, 256},
	{"iso9660", 32768 + 1, "CD001", 0, 0, 32768 + 40, 32},
	{"vfat", 82, "FAT32   ", 67, 4, 71, 11},
	{"vfat", 54, "FAT16   ", 39, 4, 43, 11},
	{"vfat", 54, "FAT12   ", 39, 4, 43, 11},
}

// Probe looks at a block device's superblocks. A device with none that is known, or too short, has Type "".
func Probe(device io.ReaderAt) Filesystem {
	for _, s := range superblocks {
		if string(readAt(device, s.magicAt, len(s.magic))) != s.magic {
			continue
		}
		return Filesystem{Type: s.kind, UUID: formatUUID(readAt(device, s.uuidAt, s.uuidLen)), Label: formatLabel(readAt(device, s.labelAt, int(s.labelSize)))}
	}
	return Filesystem{}
}

// readAt returns nil unless all n bytes can be read.
func readAt(r io.ReaderAt, off int64, n int) []byte {
	b := make([]byte, n)
	if got, _ := r.ReadAt(b, off); got != n {
		return nil
	}
	return b
}

func formatUUID(b []byte) string {
	switch {
	case len(b) == 4: // FAT's serial number
		return fmt.Sprintf("%04X-%04X", binary.LittleEndian.Uint16(b[2:]), binary.LittleEndian.Uint16(b))
	case len(b) != 16 || bytes.Equal(b, make([]byte, 16)):
		return ""
	}
	return bootID(fmt.Sprintf("%x", b))
}

// formatLabel drops the padding: zero bytes, or spaces in ISO 9660 and FAT.
func formatLabel(b []byte) string {
	text, _, _ := strings.Cut(string(b), "\x00")
	if text = strings.TrimRight(text, " "); text == "NO NAME" {
		return ""
	}
	return text
}

// DeviceSpec is a device as root= or fstab(5) names it.
type DeviceSpec struct {
	Tag   string // LABEL, UUID, PARTLABEL, PARTUUID; "" if Value is a path below /dev
	Value string
}

// ParseDevice reads "/dev/vda1", "vda1", "LABEL=x", "UUID=x", "PARTLABEL=x" or "PARTUUID=x".
func ParseDevice(text string) (DeviceSpec, error) {
	tag, value, found := strings.Cut(text, "=")
	value = strings.Trim(value, `"`)
	switch {
	case found && value != "" && (tag == "LABEL" || tag == "UUID" || tag == "PARTLABEL" || tag == "PARTUUID"):
		return DeviceSpec{tag, value}, nil
	case found || text == "" || strings.Contains(text, "..") || strings.HasPrefix(text, "/") && !strings.HasPrefix(text, "/dev/"):
		return DeviceSpec{}, fmt.Errorf("device %q: want /dev/NAME, LABEL=, UUID=, PARTLABEL= or PARTUUID=", text)
	}
	return DeviceSpec{Value: "/dev/" + strings.TrimPrefix(text, "/dev/")}, nil
}

func (d DeviceSpec) String() string {
	if d.Tag == "" {
		return d.Value
	}
	return d.Tag + "=" + d.Value
}

// matches compares as blkid does: UUIDs without regard to case. uevent is the device's uevent file in sysfs.
func (d DeviceSpec) matches(fs Filesystem, uevent string) bool {
	switch d.Tag {
	case "LABEL":
		return fs.Label == d.Value
	case "UUID":
		return fs.UUID != "" && strings.EqualFold(fs.UUID, d.Value)
	case "PARTLABEL":
		return hasLine(uevent, "PARTNAME="+d.Value)
	case "PARTUUID":
		return hasLine(strings.ToLower(uevent), "partuuid="+strings.ToLower(d.Value)) // Linux 6.10 and later say it
	}
	return false
}

func hasLine(text, line string) bool {
	return strings.Contains("\n"+text+"\n", "\n"+line+"\n")
}
