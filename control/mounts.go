package control

import (
	"path/filepath"
	"strconv"
	"strings"
)

// mount is a line of mountinfo that matters here.
type mount struct{ device, target, fstype, source string }

// diskMounts picks the mounts of block devices from /proc/self/mountinfo (proc_pid_mountinfo(5)), each device once,
// in the order of mounting. Devices with major 0 have no disk, as the guest agent sees it too.
func diskMounts(mountinfo string) []mount {
	var all []mount
	seen := map[string]bool{}
	for line := range strings.Lines(mountinfo) {
		left, right, ok := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 6 || len(r) < 2 {
			continue
		}
		device := l[2]
		if strings.HasPrefix(device, "0:") || seen[device] {
			continue
		}
		seen[device] = true
		all = append(all, mount{device, unescape(l[4]), r[0], unescape(r[1])})
	}
	return all
}

// unescape undoes \040 and its like.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// diskOf reads a block device's place from its path in sysfs: the last PCI address in it is the
// controller's, as in /sys/devices/pci0000:00/0000:00:04.0/virtio2/block/vda.
func diskOf(sysfs string) diskInfo {
	d := diskInfo{Type: "unknown", Device: "/dev/" + filepath.Base(sysfs)}
	for part := range strings.SplitSeq(sysfs, "/") {
		if pci, ok := parsePCI(part); ok {
			d.PCI = pci
		}
		for _, kind := range [...]string{"virtio", "nvme", "sata", "usb"} {
			if strings.HasPrefix(part, strings.TrimPrefix(kind, "s")) { // the kernel calls SATA's ports ata1
				d.Type = kind
			}
		}
	}
	return d
}

// parsePCI reads domain:bus:slot.function, in hexadecimal.
func parsePCI(s string) (pciAddress, bool) {
	var n [4]int64
	fields := strings.FieldsFunc(s, func(r rune) bool { return r == ':' || r == '.' })
	if len(fields) != len(n) || len(s) != len("0000:00:00.0") {
		return pciAddress{}, false
	}
	for i, f := range fields {
		var err error
		if n[i], err = strconv.ParseInt(f, 16, 32); err != nil {
			return pciAddress{}, false
		}
	}
	return pciAddress{n[0], n[1], n[2], n[3]}, true
}
