// Rootinit is the init of the VM test of root devices. In the initramfs it mounts the root that the kernel command line names and hands
// over to /sbin/init there, which is this program again and looks at what it finds. A third way, rouse.test=stay, goes on in the
// new root without any exec. Results as bootinit's.
package main

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"rouse/rootfs"
)

// handed is set in the initramfs, and proves that the environment is kept.
const handed = "ROUSE_HANDED"

func main() {
	if os.Getpid() != 1 {
		fmt.Println("rootinit only works as PID 1 of a virtual machine")
		os.Exit(2)
	}
	if os.Getenv(handed) == "" {
		report("initramfs", initramfs())
	}
	second()
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

func test(word string) bool {
	for _, v := range rootfs.Cmdline()["rouse.test"] {
		if v == word {
			return true
		}
	}
	return false
}

// initramfs returns only if something is wrong, or if the new root is to be lived in without an exec.
func initramfs() error {
	if err := rootfs.MountEarly(); err != nil {
		return err
	}
	if test("stay") {
		moved, err := rootfs.EnterRoot(rootfs.Cmdline())
		if err == nil && !moved {
			err = fmt.Errorf("did not move")
		}
		if again, err := rootfs.EnterRoot(rootfs.Cmdline()); again || err != nil {
			return fmt.Errorf("entered twice: %v %w", again, err)
		}
		return err
	}
	if err := rootfs.Coldplug(""); err != nil {
		return err
	}
	root, ok, err := rootfs.ParseRoot(rootfs.Cmdline())
	if err != nil || !ok {
		return fmt.Errorf("root: %v %w", ok, err)
	}
	if err := root.Mount("/newroot"); err != nil {
		return err
	}
	if err := os.Setenv(handed, "yes"); err != nil {
		return err
	}
	if err := rootfs.MoveRoot("/newroot"); err != nil {
		return err
	}
	return fmt.Errorf("execute: %w", unix.Exec("/sbin/init", []string{"/sbin/init", "word"}, os.Environ()))
}

func second() {
	report("mount-again", rootfs.MountEarly())
	report("marker", marker())
	report("written", written())
	report("moved", moved())
	report("extra", extra())
}

// marker is a file that only the disk has, with the owner it was given.
func marker() error {
	var st unix.Stat_t
	if err := unix.Stat("/on-disk", &st); err != nil {
		return err
	}
	if st.Uid != 7 || st.Gid != 8 || st.Mode&0o7777 != 0o640 {
		return fmt.Errorf("on-disk has mode %o, owner %d:%d", st.Mode, st.Uid, st.Gid)
	}
	if !test("stay") && (len(os.Args) != 2 || os.Args[1] != "word") {
		return fmt.Errorf("arguments %q", os.Args)
	}
	return nil
}

func written() error {
	err := os.WriteFile("/on-disk", []byte("changed"), 0o600)
	if test("readonly") != (err != nil) {
		return fmt.Errorf("write to the root: %w", err)
	}
	return nil
}

func moved() error {
	for _, p := range []string{"/proc/self", "/sys/class", "/dev/null", "/sys/fs/cgroup/cgroup.procs", "/dev/pts/ptmx"} {
		if _, err := os.Stat(p); err != nil {
			return err
		}
	}
	if _, err := os.Stat("/only-in-initramfs"); err == nil {
		return fmt.Errorf("the initramfs is still the root")
	}
	return nil
}

func extra() error {
	var rows []rootfs.Mount
	for _, r := range [][4]string{{"LABEL=data", "/run/data", "auto", "noatime"}, {"LABEL=none-such", "/run/none", "auto", "nofail"}, {"x", "/run/small", "tmpfs", "size=64k"}} {
		m, err := rootfs.ParseMount(r[0], r[1], r[2], r[3])
		if err != nil {
			return err
		}
		rows = append(rows, m)
	}
	skipped, err := rootfs.MountExtra(rows[:1:1])
	if err != nil {
		return err
	}
	if s, err := rootfs.MountExtra(rows[2:]); err != nil || len(s) != 0 {
		return fmt.Errorf("%v %w", s, err)
	}
	if len(skipped) != 0 {
		return fmt.Errorf("skipped %v", skipped)
	}
	b, err := os.ReadFile("/run/data/note")
	if string(b) != "data disk" {
		return fmt.Errorf("data disk reads %q: %w", b, err)
	}
	return nil
}
