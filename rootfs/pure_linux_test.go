package rootfs

import (
	"encoding/hex"
	"errors"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"golang.org/x/sys/unix"

	"rouse/rootfs/rtnl"
)

func TestParseCmdline(t *testing.T) {
	for _, c := range []struct {
		name, line string
		want       map[string][]string
	}{
		{"plain", "console=ttyS0 quiet", map[string][]string{"console": {"ttyS0"}, "quiet": {""}}},
		{"repeated in order", "a=1 a=2", map[string][]string{"a": {"1", "2"}}},
		{"quoted value", `rouse.hostname="a b" x`, map[string][]string{"rouse.hostname": {"a b"}, "x": {""}}},
		{"quoted word", `"p=a b" q`, map[string][]string{"p": {"a b"}, "q": {""}}},
		{"quoted flag", `"a b"`, map[string][]string{"a b": {""}}},
		{"equals in value", "root=UUID=12", map[string][]string{"root": {"UUID=12"}}},
		{"init's words", "quiet -- single", map[string][]string{"quiet": {""}, "single": {""}}},
		{"white space", "\ta=1\n b= \n", map[string][]string{"a": {"1"}, "b": {""}}},
		{"open quote", `a="b c`, map[string][]string{"a": {"b c"}}},
		{"no name", "=x", map[string][]string{}},
		{"empty", "", map[string][]string{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := ParseCmdline(c.line); !reflect.DeepEqual(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestParameters(t *testing.T) {
	c := ParseCmdline(`virtio-net.napi_tx=0 virtio_net.csum=1 virtio_net.name="a b" other.x=1 virtio_net`)
	if got := Parameters(c, "virtio_net"); got != `napi_tx=0 csum=1 name="a b"` {
		t.Errorf("parameters %q", got)
	}
}

// Whatever is written in a plain command line comes back, and no value is split.
func FuzzCmdline(f *testing.F) {
	f.Add(`a=1 "b=c d" e="f g" -- h`)
	f.Fuzz(func(t *testing.T, line string) {
		words := 0
		for name, values := range ParseCmdline(line) {
			if name == "" || len(values) == 0 {
				t.Fatalf("name %q has values %q", name, values)
			}
			words += len(values)
		}
		if plain := strings.Fields(line); !strings.ContainsAny(line, `"`) && words > len(plain) {
			t.Fatalf("%d words from %d", words, len(plain))
		}
	})
}

func TestParseIP(t *testing.T) {
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	for _, c := range []struct {
		value string
		want  IPConfig
	}{
		{"dhcp", IPConfig{Method: "dhcp"}},
		{"off", IPConfig{Method: "off"}},
		{"172.16.0.2::172.16.0.1:255.255.255.252::eth0:off", IPConfig{Static: true, Method: "off",
			Interface: Interface{Name: "eth0", Addresses: []netip.Prefix{p("172.16.0.2/30")}, Gateway4: a("172.16.0.1")}}},
		{"10.0.0.2:10.0.0.9:10.0.0.1:24:web:eth1:none:1.1.1.1:8.8.8.8:10.0.0.3", IPConfig{Static: true, Method: "none", Hostname: "web",
			Server: a("10.0.0.9"), NTP: a("10.0.0.3"), DNS: []netip.Addr{a("1.1.1.1"), a("8.8.8.8")},
			Interface: Interface{Name: "eth1", Addresses: []netip.Prefix{p("10.0.0.2/24")}, Gateway4: a("10.0.0.1")}}},
		{"[2001:db8::2]::[2001:db8::1]:64::eth0:off:[2001:db8::53]", IPConfig{Static: true, Method: "off", DNS: []netip.Addr{a("2001:db8::53")},
			Interface: Interface{Name: "eth0", Addresses: []netip.Prefix{p("2001:db8::2/64")}, Gateway6: a("2001:db8::1")}}},
		{"10.1.2.3", IPConfig{Static: true, Interface: Interface{Addresses: []netip.Prefix{p("10.1.2.3/8")}}}},
		{"192.168.1.2", IPConfig{Static: true, Interface: Interface{Addresses: []netip.Prefix{p("192.168.1.2/24")}}}},
		{":::::eth0:dhcp", IPConfig{Method: "dhcp", Interface: Interface{Name: "eth0"}}},
		{"10.0.0.2:0.0.0.0:0.0.0.0:255.0.0.0", IPConfig{Static: true, Interface: Interface{Addresses: []netip.Prefix{p("10.0.0.2/8")}}}},
	} {
		t.Run(c.value, func(t *testing.T) {
			got, err := ParseIP(c.value)
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("%+v, %v; want %+v", got, err, c.want)
			}
		})
	}
	for _, bad := range []string{"10.0.0.2:::255.0.255.0", "10.0.0.300:::", "10.0.0.2:::99", "10.0.0.2:x::24", "[::1", "[::1]x", "10.0.0.2:::::eth0:frob", "frob", "10.0.0.2:::24a", ":::::::x"} {
		if got, err := ParseIP(bad); err == nil || !strings.Contains(err.Error(), "ip="+bad) {
			t.Errorf("ParseIP(%q) = %+v, %v", bad, got, err)
		}
	}
}

func FuzzParseIP(f *testing.F) {
	f.Add("172.16.0.2::172.16.0.1:255.255.255.252:h:eth0:off:[::1]:1.1.1.1")
	f.Fuzz(func(t *testing.T, value string) {
		c, err := ParseIP(value)
		if err != nil {
			return
		}
		if c.Static != (len(c.Interface.Addresses) == 1) {
			t.Fatalf("static %v with addresses %v", c.Static, c.Interface.Addresses)
		}
		for _, p := range c.Interface.Addresses {
			if !p.IsValid() {
				t.Fatalf("invalid prefix from %q", value)
			}
		}
	})
}

func TestPick(t *testing.T) {
	links := []rtnl.Link{{Name: "lo", Loopback: true}, {Name: "sit0", Kind: "sit"}, {Name: "veth0", Kind: "veth", Ethernet: true, MAC: []byte{2, 0, 0, 0, 0, 1}},
		{Name: "eth0", Ethernet: true, MAC: []byte{2, 0, 0, 0, 0, 2}}}
	for _, c := range []struct {
		name string
		i    Interface
		want int
	}{
		{"first is the first physical", Interface{}, 3},
		{"the word first", Interface{Name: "first"}, 3},
		{"by name", Interface{Name: "veth0"}, 2},
		{"by MAC", Interface{MAC: "02-00-00-00-00-01"}, 2},
		{"MAC before name", Interface{Name: "eth0", MAC: "02:00:00:00:00:01"}, 2},
		{"unknown name", Interface{Name: "eth9"}, -1},
		{"unknown MAC", Interface{MAC: "02:00:00:00:00:09"}, -1},
	} {
		if got := c.i.pick(links); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
	if got := (&Interface{}).pick(links[:3]); got != 2 {
		t.Errorf("without a physical NIC: %d, want 2", got)
	}
}

func TestValidate(t *testing.T) {
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	for _, c := range []struct {
		say string
		i   Interface
	}{
		{"is no MAC", Interface{MAC: "x"}}, {"is no MAC", Interface{SetMAC: "01:02"}}, {"15 bytes", Interface{Name: "abcdefghijklmnop"}},
		{"address", Interface{Addresses: []netip.Prefix{{}}}}, {"address", Interface{Addresses: []netip.Prefix{p("224.0.0.1/4")}}},
		{"gateway4", Interface{Gateway4: a("::1")}}, {"gateway6", Interface{Gateway6: a("1.1.1.1")}},
		{"family", Interface{Routes: []Route{{}}}}, {"family", Interface{Routes: []Route{{Destination: p("::/0"), Gateway: a("1.1.1.1")}}}},
	} {
		if err := c.i.Validate(); err == nil || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%+v: error %v does not say %q", c.i, err, c.say)
		}
	}
	if err := (&Interface{}).Validate(); err != nil {
		t.Error(err)
	}
}

// The goldens are written out by hand from RFC 5227 and RFC 4861; that a kernel takes them is tested in namespaces.
func TestFrames(t *testing.T) {
	mac := hardware{2, 0, 0, 0, 0, 0x0a}
	arp := hex.EncodeToString(gratuitousARP(mac, netip.MustParseAddr("10.0.0.5")))
	want := "ffffffffffff" + "02000000000a" + "0806" + "0001080006040001" + "02000000000a" + "0a000005" + "000000000000" + "0a000005"
	if arp != want {
		t.Errorf("ARP\n%s, want\n%s", arp, want)
	}
	na := unsolicitedNA(mac, netip.MustParseAddr("fe80::5"))
	want = "333300000001" + "02000000000a" + "86dd" + "60000000" + "0020" + "3a" + "ff" +
		"fe800000000000000000000000000005" + "ff020000000000000000000000000001" + "8800"
	if got := hex.EncodeToString(na); !strings.HasPrefix(got, want) || !strings.HasSuffix(got, "20000000"+"fe800000000000000000000000000005"+"0201"+"02000000000a") {
		t.Errorf("NA %s", got)
	}
	src, dst := netip.MustParseAddr("fe80::5").As16(), netip.MustParseAddr("ff02::1").As16()
	if sum := checksum6(src, dst, na[etherLen+ip6Len:]); sum != 0 {
		t.Errorf("checksum over a frame with its checksum is %#x, want 0", sum)
	}
}

func TestHosts(t *testing.T) {
	first := hosts("", "one")
	if want := "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 one # rouse\n"; first != want {
		t.Errorf("%q, want %q", first, want)
	}
	if got := hosts("127.0.0.1\tlocalhost me # note\n10.0.0.1 db", "two"); got != "127.0.0.1\tlocalhost me # note\n10.0.0.1 db\n127.0.1.1 two # rouse\n" {
		t.Errorf("others' lines: %q", got)
	}
	if got := hosts(hosts(first, "two"), "two"); got != strings.Replace(first, "one", "two", 1) {
		t.Errorf("renamed: %q", got)
	}
}

func TestCheckHostname(t *testing.T) {
	for name, ok := range map[string]bool{"a": true, "web-1.example.org": true, "A9": true, "": false, "-a": false, "a-": false, "a..b": false, "a_b": false,
		"a b": false, "ü": false, strings.Repeat("a", 64): true, strings.Repeat("a", 65): false} {
		if err := CheckHostname(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestMachineID(t *testing.T) {
	id := MachineID([16]byte{0xff, 15: 1})
	if err := CheckMachineID(id); err != nil || id != "ff000000000040008000000000000001" {
		t.Errorf("%s: %v", id, err)
	}
	if got := bootID(id); got != "ff000000-0000-4000-8000-000000000001" {
		t.Errorf("boot id %s", got)
	}
	for _, bad := range []string{"", "x", strings.Repeat("0", 32), strings.ToUpper(id), id + "0"} {
		if CheckMachineID(bad) == nil {
			t.Errorf("%q accepted", bad)
		}
	}
}

// The order is what the rows' comments promise: nothing is mounted before the folder it lies in.
func TestMountOrder(t *testing.T) {
	at := map[string]int{}
	for n, m := range append(EarlyMounts(), LateMounts()...) {
		at[m.Target] = n
		if m.Why == "" {
			t.Errorf("%s: no reason given", m.Target)
		}
	}
	for _, c := range [][2]string{{"/dev", "/dev/pts"}, {"/dev", "/dev/shm"}, {"/sys", "/sys/fs/cgroup"}, {"/sys", "/sys/fs/fuse/connections"}, {"/dev", "/proc"}} {
		if at[c[0]] >= at[c[1]] {
			t.Errorf("%s is mounted after %s", c[0], c[1])
		}
	}
	if got := EarlyMounts()[3].String(); got != "cgroup2 /sys/fs/cgroup cgroup2 nosuid,nodev,noexec,nsdelegate" {
		t.Error(got)
	}
}

func TestMountinfo(t *testing.T) {
	all := parseMountinfo(`21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
22 21 0:5 / /dev rw - devtmpfs dev rw
30 21 8:16 / /srv/a\040b rw,noatime - ext4 /dev/vdb rw
31 30 0:30 / /srv/a\040b/sub rw - fuse.sshfs x rw
32 30 0:31 / /srv/a\040b/nine rw - 9p share rw
broken line
`)
	var got []string
	for _, m := range persistent(all) {
		got = append(got, m.Target)
	}
	if want := []string{"/srv/a b/nine", "/srv/a b", "/"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if all[0].Options != "rw,relatime" || all[0].Source != "/dev/vda1" {
		t.Errorf("%+v", all[0])
	}
}

func FuzzMountinfo(f *testing.F) {
	f.Add(`30 21 8:16 / /srv/a\040b rw,noatime - ext4 /dev/vdb rw`)
	f.Fuzz(func(t *testing.T, text string) {
		if n := len(parseMountinfo(text)); n > strings.Count(text, "\n")+1 {
			t.Fatalf("%d mounts", n)
		}
	})
}

func TestResolver(t *testing.T) {
	r := Resolver{Servers: []netip.Addr{netip.MustParseAddr("1.1.1.1"), netip.MustParseAddr("::1")}, Search: []string{"a.org", "b"}, Options: []string{"timeout:1"}}
	if got := r.String(); got != "nameserver 1.1.1.1\nnameserver ::1\nsearch a.org b\noptions timeout:1\n" {
		t.Errorf("%q", got)
	}
}

func TestRebootCommand(t *testing.T) {
	table := func(oem string) fstest.MapFS {
		return fstest.MapFS{"FACP": {Data: []byte("FACP\x24\x00\x00\x00\x06\x00" + oem)}}
	}
	for _, c := range []struct {
		kind, arch string
		acpi       fstest.MapFS
		want       int
	}{
		{"", "amd64", table("BOCHS "), unix.LINUX_REBOOT_CMD_POWER_OFF},
		{"poweroff", "amd64", table("CLOUDH"), unix.LINUX_REBOOT_CMD_POWER_OFF},
		{"poweroff", "amd64", table("FIRECK"), unix.LINUX_REBOOT_CMD_RESTART},
		{"poweroff", "amd64", nil, unix.LINUX_REBOOT_CMD_RESTART},
		{"poweroff", "amd64", table(""), unix.LINUX_REBOOT_CMD_POWER_OFF},
		{"poweroff", "arm64", nil, unix.LINUX_REBOOT_CMD_POWER_OFF},
		{"halt", "amd64", nil, unix.LINUX_REBOOT_CMD_HALT},
		{"kexec", "amd64", nil, unix.LINUX_REBOOT_CMD_KEXEC},
		{"reboot", "arm64", nil, unix.LINUX_REBOOT_CMD_RESTART},
	} {
		if got, err := rebootCommand(c.kind, c.arch, c.acpi); err != nil || got != c.want {
			t.Errorf("%+v: %#x, %v", c, got, err)
		}
	}
}

func TestPowerOffRefuses(t *testing.T) {
	if err := PowerOff("now"); err == nil || !strings.Contains(err.Error(), "now") {
		t.Error(err)
	}
	if os.Getpid() == 1 {
		t.Skip("this test runs as PID 1: it would end its container")
	}
	if err := PowerOff("poweroff"); !errors.Is(err, ErrNotInit) {
		t.Error(err)
	}
}
