// Command init is rouse's guest side. As PID 1 it boots the guest, runs its services and oversees its
// snapshots; under any other pid it is the guest command, rousectl.
//
// This package is wiring only: boot.go is the order of the boot, parts.go plugs the real gate, queues,
// services and generation into the flow of package quiesce, guest.go answers the host, and ctl*.go are
// the guest commands.
package main

import (
	"errors"
	"os"

	"rouse/internal/fmt"
	"rouse/service"
)

// version is set by the build.
var version = "unreleased"

func main() {
	// Between the fork and the exec of some services this binary sets up their confinement.
	service.RunShim()
	if os.Getpid() == 1 {
		bootGuest()
		return
	}
	if err := runCommand(os.Args[1:], os.Stdout); err != nil {
		if errors.Is(err, errHelp) {
			fmt.Println(err)
			return
		}
		fmt.Fprintln(os.Stderr, "rousectl:", err)
		os.Exit(1)
	}
}
