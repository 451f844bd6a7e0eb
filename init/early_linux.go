package main

import (
	"os"

	"rouse/config"
	"rouse/rootfs"
)

// enterRoot goes from the initramfs to the root that the kernel command line names by root=, and on living there, without
// an exec: this binary, its descriptors and /run stay. Without root=, and on a root that the kernel or another
// initramfs has mounted, it does nothing but put the overlay over it that overlayroot=tmpfs asks for.
//
// Call it after MountEarly and before the configuration is read. carried is the initramfs's own /etc/rouse.toml, for
// a root that has none; nil if this is no initramfs or it has none. An error is one to power off for: it says what was
// looked for and what is there instead, and the old root may be half emptied.
func (g *guest) enterRoot() (carried []byte, err error) {
	cmdline := rootfs.Cmdline()
	if len(cmdline["root"]) == 0 {
		return nil, nil
	}
	// The new root need not have modules of this kernel, so what rouse wants is loaded from here. Best effort: what then lacks
	// says so itself, and after the switch the loader finds these there.
	if rootfs.IsInitramfs() {
		g.loadModules(config.GuestModules())
		carried, _ = os.ReadFile(config.Path)
	}
	moved, err := rootfs.EnterRoot(cmdline)
	if err != nil || !moved {
		return nil, err
	}
	g.log.printf("root is %s", cmdline["root"][len(cmdline["root"])-1])
	return carried, rootfs.MountEarly() // /tmp stayed behind
}

// plug loads the drivers of the devices that are there. Best effort: a device without a driver is missed by name where it
// is needed.
func (g *guest) plug() {
	if err := rootfs.Coldplug(""); err != nil {
		g.problem("drivers: %v", err)
	}
}

// extraMounts mounts what the configuration asks for (rootfs.ParseMount makes the rows), in its order. Those with nofail are
// told of and left out; one without is fatal, because a service would write where nobody looks for it.
func (g *guest) extraMounts(rows []rootfs.Mount) error {
	skipped, err := rootfs.MountExtra(rows)
	for _, s := range skipped {
		g.problem("%v", s)
	}
	return err
}

// ownNothing is the start of a container: it says what is left out there, and why.
func (g *guest) ownNothing(known string) {
	g.log.printf("container: %s", known)
	for _, s := range rootfs.LeftToMachine() {
		g.log.printf("container: left out: %s", s)
	}
}
