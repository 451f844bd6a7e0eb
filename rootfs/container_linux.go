package rootfs

import (
	"os"

	"rouse/rootfs/rtnl"
)

// initialPIDs is the machine's own pid namespace: PROC_PID_INIT_INO of include/linux/proc_ns.h (v6.12), a fixed number.
const initialPIDs = "pid:[4026531836]"

// Container tells, for PID 1, that it is a container's and not a machine's, and by what it is known; "" if it is a
// machine's. A kernel starts its init without /proc, a container's runtime does not.
func Container() string {
	own, err := os.Readlink("/proc/self/ns/pid")
	if err == nil && own != initialPIDs {
		return "a pid namespace of its own"
	}
	if name := os.Getenv("container"); err != nil && name != "" { // systemd's Container Interface; podman and nspawn set it
		return "container=" + name
	}
	return ""
}

// OwnNetwork tells, in a container, whether the network namespace is the container's and not the machine's, which has hardware in it.
func OwnNetwork() bool {
	c, err := rtnl.Dial(0)
	if err != nil {
		return false
	}
	defer c.Close()
	links, err := c.Links()
	for n := range links {
		if links[n].Kind == "" && !links[n].Loopback {
			return false
		}
	}
	return err == nil
}

// LeftToMachine is what PID 1 of a container leaves out, and why. Its mounts are the runtime's as well; all that is made is a folder for
// rouse's own files.
func LeftToMachine() []string {
	left := []string{
		"mounts: the runtime's",
		"root=, modules, drivers: the kernel is the machine's",
		"network: the addresses are the runtime's to give",
		"Ctrl-Alt-Del and power: the container ends, not the machine",
		"random pool, clock and boot id: the machine's, which is not copied with us",
	}
	if err := os.MkdirAll("/run/rouse", 0o755); err != nil {
		left = append(left, err.Error())
	}
	return left
}
