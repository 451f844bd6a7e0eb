package config

import (
	"strings"
	"syscall"
)

// Signal is the signal of a name, with or without SIG before it; 0 if there is none that could stop a
// service.
func Signal(name string) syscall.Signal {
	switch strings.TrimPrefix(name, "SIG") {
	case "HUP":
		return syscall.SIGHUP
	case "INT":
		return syscall.SIGINT
	case "QUIT":
		return syscall.SIGQUIT
	case "KILL":
		return syscall.SIGKILL
	case "TERM":
		return syscall.SIGTERM
	case "USR1":
		return syscall.SIGUSR1
	case "USR2":
		return syscall.SIGUSR2
	case "WINCH":
		return syscall.SIGWINCH
	case "PWR":
		return syscall.SIGPWR
	}
	return 0
}
