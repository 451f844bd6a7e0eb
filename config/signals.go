package config

import (
	"strings"
	"syscall"
)

// Signals are the names that stop-signal may have, without the SIG prefix.
var Signals = map[string]syscall.Signal{
	"HUP": syscall.SIGHUP, "INT": syscall.SIGINT, "QUIT": syscall.SIGQUIT, "KILL": syscall.SIGKILL,
	"TERM": syscall.SIGTERM, "USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2, "WINCH": syscall.SIGWINCH,
	"PWR": syscall.SIGPWR,
}

// Signal is the signal of a name that Parse has accepted.
func Signal(name string) syscall.Signal { return Signals[strings.TrimPrefix(name, "SIG")] }
