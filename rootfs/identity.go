package rootfs

import (
	"net/netip"
	"strings"

	"rouse/internal/fmt"
)

// Resolver is the content of /etc/resolv.conf.
type Resolver struct {
	Servers []netip.Addr // glibc uses the first 3
	Search  []string
	Options []string // such as "timeout:1"
}

// String is the file's text, see resolv.conf(5).
func (r Resolver) String() string {
	var b strings.Builder
	for _, s := range r.Servers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	if len(r.Search) > 0 {
		b.WriteString("search " + strings.Join(r.Search, " ") + "\n")
	}
	if len(r.Options) > 0 {
		b.WriteString("options " + strings.Join(r.Options, " ") + "\n")
	}
	return b.String()
}

const hostsMark = " # rouse"

// hosts returns old, the text of /etc/hosts, with names for loopback if it has none, and with exactly one line for
// hostname: a clone's new name replaces the one that this function wrote before.
func hosts(old, hostname string) string {
	var b strings.Builder
	local := false
	for _, line := range strings.SplitAfter(old, "\n") {
		if line == "" {
			continue
		}
		if strings.HasSuffix(strings.TrimSpace(line), strings.TrimSpace(hostsMark)) {
			continue
		}
		text, _, _ := strings.Cut(line, "#")
		for _, f := range strings.Fields(text) {
			local = local || f == "localhost"
		}
		b.WriteString(strings.TrimRight(line, "\n") + "\n")
	}
	if !local {
		b.WriteString("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n")
	}
	if hostname != "" && hostname != "localhost" {
		// 127.0.1.1 as Debian does: the name resolves without any network and does not hide localhost.
		b.WriteString("127.0.1.1 " + hostname + hostsMark + "\n")
	}
	return b.String()
}

// CheckHostname refuses what cannot be a host name: RFC 1123 labels, 64 bytes in all (__NEW_UTS_LEN of linux/utsname.h).
func CheckHostname(name string) error {
	if name == "" || len(name) > 64 {
		return fmt.Errorf("hostname %q: want 1 to 64 bytes", name)
	}
	for _, label := range strings.Split(name, ".") {
		if !validLabel(label) {
			return fmt.Errorf("hostname %q: want letters, digits and '-' between dots, no '-' at an end", name)
		}
	}
	return nil
}

func validLabel(label string) bool {
	if label == "" || label[0] == '-' || label[len(label)-1] == '-' {
		return false
	}
	return strings.Trim(strings.ToLower(label), "abcdefghijklmnopqrstuvwxyz0123456789-") == "" && !strings.ContainsAny(label, "_ ")
}

// CheckMachineID refuses what is no machine id: 32 lower-case hexadecimal digits, not all zero; see machine-id(5).
func CheckMachineID(id string) error {
	b, err := parseHex(id)
	if err != nil || len(b) != 16 || strings.ToLower(id) != id || id == strings.Repeat("0", 32) {
		return fmt.Errorf("machine id %q: want 32 lower-case hexadecimal digits, not all zero", id)
	}
	return nil
}

// MachineID makes a machine id of 16 random bytes, marked as a version 4 UUID as systemd's are.
func MachineID(random [16]byte) string {
	random[6] = random[6]&0x0f | 0x40
	random[8] = random[8]&0x3f | 0x80
	return fmt.Sprintf("%x", random[:])
}

// bootID is a machine id written as a UUID with dashes, which is the form of /proc/sys/kernel/random/boot_id.
func bootID(id string) string {
	return id[:8] + "-" + id[8:12] + "-" + id[12:16] + "-" + id[16:20] + "-" + id[20:]
}
