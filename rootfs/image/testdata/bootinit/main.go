// Bootinit is the init of the VM tests: it does with rootfs what rouse's init does, prints what came of it on the console, one
// "TEST name: ok" or "TEST name: reason" a line, and powers off.
package main

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"rouse/rootfs"
)

var modules = []string{"fuse", "virtio_pci", "virtio_console", "virtio_net", "nf_tables", "nft_ct", "nf_conntrack", "inet_diag", "tcp_diag",
	"udp_diag", "unix_diag", "af_packet_diag", "af_packet"}

func main() {
	if os.Getpid() != 1 {
		fmt.Println("bootinit only works as PID 1 of a virtual machine")
		os.Exit(2)
	}
	steps := []struct {
		name string
		do   func() error
	}{
		{"mount-early", rootfs.MountEarly},
		{"console", rootfs.OpenConsole},
		{"mount-again", rootfs.MountEarly},
		{"modules", func() error { return rootfs.LoadModules("", modules) }},
		{"modules-again", func() error { return rootfs.LoadModules("", modules) }},
		{"module-missing", missing},
		{"coldplug", func() error { return rootfs.Coldplug("/") }},
		{"mount-late", rootfs.MountLate},
		{"devices", devices},
		{"cgroups", cgroups},
		{"cmdline", cmdline},
		{"credentials", credentials},
		{"network", network},
		{"announce", rootfs.Announce},
		{"hostname", hostname},
		{"files", files},
	}
	for _, s := range steps {
		report(s.name, s.do())
	}
	report("power-off", rootfs.PowerOff("poweroff"))
	select {}
}

func report(name string, err error) {
	text := "ok"
	if err != nil {
		text = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	fmt.Printf("TEST %s: %s\n", name, text)
}

func missing() error {
	err := rootfs.LoadModules("", []string{"no-such-module", "fuse"})
	if err == nil || !strings.Contains(err.Error(), "no_such_module") {
		return fmt.Errorf("want an error that names no_such_module, have %v", err)
	}
	return nil
}

func devices() error {
	for _, p := range []string{"/dev/null", "/dev/fuse", "/dev/ptmx", "/dev/pts/ptmx", "/dev/shm", "/dev/fd/1", "/sys/fs/fuse/connections", "/sys/fs/cgroup/cgroup.procs", "/run", "/tmp"} {
		if _, err := os.Stat(p); err != nil {
			return err
		}
	}
	return nil
}

func cgroups() error {
	got, err := rootfs.EnableControllers("/sys/fs/cgroup")
	if err != nil {
		return err
	}
	for _, want := range []string{"cpu", "memory", "pids"} {
		if !slices.Contains(got, want) {
			return fmt.Errorf("controllers %v, want %s", got, want)
		}
	}
	return nil
}

func cmdline() error {
	if got := rootfs.Cmdline()["rouse.test"]; !slices.Equal(got, []string{"a b", "c"}) {
		return fmt.Errorf("rouse.test is %q", got)
	}
	return nil
}

func credentials() error {
	if err := rootfs.LoadModules("", []string{"qemu_fw_cfg"}); err != nil {
		return err
	}
	c, err := rootfs.Credentials()
	if err != nil || string(c["smbios"]) != "one" || string(c["fw"]) != "two" {
		return fmt.Errorf("credentials %q: %w", c, err)
	}
	f, err := rootfs.FirmwareFiles("opt/rouse")
	if err != nil || string(f["rouse.toml"]) != "three" {
		return fmt.Errorf("fw_cfg %q: %w", f, err)
	}
	return nil
}

// network asks QEMU's user network for a TCP connection to its own address: nothing of the host is touched.
func network() error {
	err := rootfs.ConfigureNetwork([]rootfs.Interface{{
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.2.15/24"), netip.MustParsePrefix("fec0::15/64")},
		Gateway4:  netip.MustParseAddr("10.0.2.2"), Gateway6: netip.MustParseAddr("fe80::2"), MTU: 1400}})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "[fec0::15]:0") // a tentative address could not be bound
	if err != nil {
		return err
	}
	l.Close()
	c, err := net.Dial("tcp", "10.0.2.100:7") // guestfwd answers with what the test gave it
	if err != nil {
		return err
	}
	defer c.Close()
	b := make([]byte, 64)
	n, err := c.Read(b)
	if !bytes.HasPrefix(b[:n], []byte("hello")) {
		return fmt.Errorf("read %q: %w", b[:n], err)
	}
	return nil
}

func hostname() error {
	if err := rootfs.SetHostname("guest-1"); err != nil {
		return err
	}
	if n, err := os.Hostname(); n != "guest-1" {
		return fmt.Errorf("hostname %q: %w", n, err)
	}
	return rootfs.WriteHosts("guest-1")
}

func files() error {
	if err := rootfs.WriteResolver(rootfs.Resolver{Servers: []netip.Addr{netip.MustParseAddr("10.0.2.3")}}); err != nil {
		return err
	}
	id := rootfs.MachineID([16]byte{1})
	if err := rootfs.SetMachineID(id); err != nil {
		return err
	}
	boot, err := rootfs.CoverBootID()
	if err == nil {
		err = boot.Set(id)
	}
	if err != nil {
		return err
	}
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err == nil && strings.ReplaceAll(strings.TrimSpace(string(b)), "-", "") != id {
		return fmt.Errorf("boot_id reads %q, want %s", b, id)
	}
	return err
}
