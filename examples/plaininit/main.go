// Command plaininit is an init as many microVM images have one: it mounts, loads modules, brings the
// network up and runs one program. It knows nothing of snapshots: the demo clones it to show what then
// repeats. The program is the kernel parameter plain.exec=PATH.
package main

import (
	"fmt"
	"os"
	"syscall"

	"rouse/config"
	"rouse/rootfs"
)

func main() {
	fmt.Println("plaininit:", run())
	if err := rootfs.PowerOff(""); err != nil {
		fmt.Println("plaininit:", err)
	}
	select {}
}

// run returns when the program has ended, or why it did not start.
func run() error {
	if err := rootfs.OpenConsole(); err != nil {
		return err
	}
	if err := rootfs.MountEarly(); err != nil {
		return err
	}
	// Best effort: modules that the image does not hold are built in or not needed.
	_ = rootfs.LoadModules("", config.GuestModules())
	cmdline := rootfs.Cmdline()
	var interfaces []rootfs.Interface
	for _, value := range cmdline["ip"] {
		ip, err := rootfs.ParseIP(value)
		if err != nil {
			return err
		}
		interfaces = append(interfaces, ip.Interface)
	}
	if err := rootfs.ConfigureNetwork(interfaces); err != nil {
		return err
	}
	program := cmdline["plain.exec"]
	if len(program) == 0 {
		return fmt.Errorf("kernel command line: no plain.exec=PATH")
	}
	return supervise(program[0])
}

// supervise runs the program and reaps until it ends.
func supervise(path string) error {
	p, err := os.StartProcess(path, []string{path}, &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
	if err != nil {
		return err
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if err != nil {
			return err
		}
		if pid == p.Pid {
			return fmt.Errorf("%s ended with status %d", path, status.ExitStatus())
		}
	}
}
