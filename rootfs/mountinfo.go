package rootfs

import (
	"slices"
	"strconv"
	"strings"
)

// parseMountinfo reads /proc/self/mountinfo (proc(5)): mounts in the order in which they were made, with Source,
// Target, Type and Options. Lines of another shape are skipped.
func parseMountinfo(text string) []Mount {
	var out []Mount
	for _, line := range strings.Split(text, "\n") {
		before, after, ok := strings.Cut(line, " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 6 || len(g) < 2 {
			continue
		}
		out = append(out, Mount{Source: unescape(g[1]), Target: unescape(f[4]), Type: g[0], Options: f[5]})
	}
	return out
}

// unescape undoes the kernel's octal escapes of space, tab, newline and backslash.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(v))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// volatile are file systems that have nothing to write back. FUSE is among them although it may: its server is a
// process that has ended by now, or this one, which would wait for itself.
var volatile = []string{"proc", "sysfs", "devtmpfs", "devpts", "tmpfs", "ramfs", "rootfs", "cgroup", "cgroup2", "fusectl", "securityfs",
	"debugfs", "tracefs", "bpf", "pstore", "efivarfs", "configfs", "mqueue", "hugetlbfs", "binfmt_misc", "autofs", "nsfs", "fuse", "squashfs", "erofs", "iso9660"}

// persistent returns the mounts that hold data, the last one first, so that a mount comes before what it lies on.
func persistent(all []Mount) []Mount {
	var out []Mount
	for n := len(all) - 1; n >= 0; n-- {
		if m := &all[n]; !slices.Contains(volatile, m.Type) && !strings.HasPrefix(m.Type, "fuse.") {
			out = append(out, *m)
		}
	}
	return out
}
