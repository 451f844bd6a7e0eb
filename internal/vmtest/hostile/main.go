// Hostile is a service that does to PID 1 what its first argument says. It prints what came of it, and stays.
package main

import (
	"bytes"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	deeds := map[string]func(){"signal": signals, "bomb": bomb, "spin": spin, "memory": memory, "flood": flood, "kill": kill}
	do := deeds[os.Args[1]]
	if do == nil {
		fmt.Println("no such deed:", os.Args[1])
		os.Exit(2)
	}
	do()
	fmt.Println("done")
	time.Sleep(24 * time.Hour)
}

// signals sends PID 1 all that it has not to do with: those that end or reboot a machine are its own affair.
func signals() {
	for n := syscall.Signal(1); n <= 64; n++ {
		switch n {
		case unix.SIGINT, unix.SIGTERM, unix.SIGPWR, unix.SIGUSR1, unix.SIGUSR2:
			continue
		}
		if err := unix.Kill(1, n); err != nil {
			fmt.Println("kill", int(n), err)
		}
	}
}

// kill is what another user than root may not.
func kill() {
	for _, n := range []syscall.Signal{unix.SIGTERM, unix.SIGKILL, unix.SIGHUP, 0} {
		fmt.Println("kill", int(n), unix.Kill(1, n))
	}
}

// bomb forks until it cannot, in each child too, and then keeps all CPUs busy.
func bomb() {
	signal.Ignore(unix.SIGTERM)
	fmt.Println("done")
	for range 100_000 {
		pid, _, _ := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
		if pid == 0 {
			for range 1 << 16 { // a child forks and then spins
				_, _, _ = unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
			}
		}
	}
	spin()
}

var turns int

func spin() {
	for turns >= 0 {
		turns++
	}
}

// memory takes all there is.
func memory() {
	fmt.Println("done")
	for {
		p, err := unix.Mmap(-1, 0, 16<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			fmt.Println(err)
			return
		}
		for i := 0; i < len(p); i += 4096 {
			*(*byte)(unsafe.Pointer(&p[i])) = 1
		}
	}
}

// flood prints without end, as fast as it can.
func flood() {
	line := append(bytes.Repeat([]byte{'x'}, 100), '\n')
	for {
		_, _ = os.Stdout.Write(line)
	}
}
