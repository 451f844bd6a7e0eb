// Handover is the init of an initramfs as distributions have it: it mounts the root that the kernel command line names and
// executes /sbin/init there. Tests boot rouse by it as the init of a disk.
package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"rouse/rootfs"
)

func main() {
	fmt.Println("handover:", run())
	_ = rootfs.PowerOff("poweroff")
	select {}
}

func run() error {
	cmdline := rootfs.Cmdline
	if err := rootfs.MountEarly(); err != nil {
		return err
	}
	if err := rootfs.LoadModules("", []string{"virtio_pci", "virtio_blk", "squashfs", "ext4"}); err != nil {
		return err
	}
	root, ok, err := rootfs.ParseRoot(cmdline())
	if err != nil || !ok {
		return errors.Join(err, errors.New("no root="))
	}
	root.Overlay = false // that is rouse's part
	if err := root.Mount("/newroot"); err != nil {
		return err
	}
	if err := rootfs.MoveRoot("/newroot"); err != nil {
		return err
	}
	return unix.Exec("/sbin/init", []string{"/sbin/init"}, os.Environ())
}
