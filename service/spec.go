package service

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"
)

// Defaults of a Spec's zero fields.
const (
	DefaultReadyTimeout = 30 * time.Second
	DefaultStopTimeout  = 10 * time.Second
	DefaultHookTimeout  = 10 * time.Second
	DefaultRestartDelay = 100 * time.Millisecond
	DefaultRestartMax   = 30 * time.Second
	DefaultStartLimit   = 5
	DefaultStartWindow  = 10 * time.Second
)

// NoRestart is the exit status by which a service says that starting it again is of no use; no
// restart policy overrules it. s6 and daemontools scripts use the same number.
const NoRestart = 125

// Spec describes one service. The zero value of every field but Name and Exec is usable.
type Spec struct {
	Name string   // letters, digits, and . _ - @ inside; unique
	Exec []string // argv; Exec[0] without a slash is looked up in the PATH of Env
	Env  []string // "KEY=value"; PATH, HOME, USER and LOGNAME are added where missing
	Dir  string   // working directory, "/" if empty; it must exist

	User  string // name, number, or either with ":group"; empty is root
	Group string // name or number; wins over the group of User

	After   []string // names of services that must be ready (oneshot: have ended well) before
	Oneshot bool     // runs to its end once; ready when it has exited with 0

	Restart      string        // "never" (also ""), "on-failure" or "always"
	RestartDelay time.Duration // before the first restart; doubles with each, with jitter
	RestartMax   time.Duration // longest delay
	StartLimit   int           // starts within StartWindow before the service counts as failed; -1: no limit
	StartWindow  time.Duration

	Ready        Ready
	ReadyTimeout time.Duration
	Health       Health
	StopTimeout  time.Duration  // from StopSignal to the kill of the whole cgroup
	StopSignal   syscall.Signal // SIGTERM if 0
	Watchdog     time.Duration  // longest pause between WATCHDOG=1 messages; 0 is off

	Limits  Limits
	Confine Confine
	Sockets []Socket
	FDStore int // how many descriptors the service may give us to keep over a restart

	Settle string // "require" (also ""), "try" or "off"; see Manager.Settle

	BeforeSnapshot []Hook
	AfterRestore   []Hook
}

// Ready says how one learns that a service is ready to work.
type Ready struct {
	// Kind is "" (ready once executed), "notify" (READY=1 as sd_notify(3) has it), "fd" (a newline
	// written to descriptor 3, or the first after those of Sockets, as s6 has it), "port" (a socket
	// listens on Port; found without connecting to it), "http" (a GET of URL is answered with 2xx) or
	// "exec" (Exec ends with 0).
	Kind string
	Port uint16
	URL  string   // "http://HOST:PORT/PATH" or "unix:/SOCKET:/PATH"
	Exec []string // runs as the service's user in the cgroup of its hooks
}

// Health is a check that is repeated while the service is ready. A service that fails it is ended, and restarted as
// its policy says; "on-failure" does.
type Health struct {
	Check    Ready         // of kind "port", "http" or "exec"; "" is no check
	Interval time.Duration // 30 s if 0, as in OCI images
	Timeout  time.Duration // 5 s if 0, and at most that
	Retries  int           // failures in a row that count; 3 if 0
}

// Hook is what is done for a service around a snapshot: a command is run, or an empty POST sent to URL
// ("http://HOST:PORT/PATH" or "unix:/SOCKET:/PATH") and 2xx expected.
type Hook struct {
	Exec    []string
	URL     string
	Timeout time.Duration // DefaultHookTimeout if 0
}

func (s Spec) withDefaults() Spec {
	setDuration(&s.ReadyTimeout, DefaultReadyTimeout)
	setDuration(&s.StopTimeout, DefaultStopTimeout)
	setDuration(&s.RestartDelay, DefaultRestartDelay)
	setDuration(&s.RestartMax, DefaultRestartMax)
	setDuration(&s.StartWindow, DefaultStartWindow)
	if s.StopSignal == 0 {
		s.StopSignal = syscall.SIGTERM
	}
	if s.StartLimit == 0 {
		s.StartLimit = DefaultStartLimit
	}
	setDuration(&s.Health.Interval, 30*time.Second)
	setDuration(&s.Health.Timeout, 5*time.Second)
	if s.Health.Retries <= 0 {
		s.Health.Retries = 3
	}
	if s.Restart == "" {
		s.Restart = "never"
	}
	if s.Settle == "" {
		s.Settle = "require"
	}
	if s.Dir == "" {
		s.Dir = "/"
	}
	return s
}

func setDuration(d *time.Duration, standard time.Duration) {
	if *d == 0 {
		*d = standard
	}
}

// check finds what is wrong with s on its own; order finds what is wrong between services.
func (s Spec) check() error {
	if err := checkName(s.Name); err != nil {
		return err
	}
	problems := []error{
		s.checkExec(),
		oneOf("restart", s.Restart, "", "never", "on-failure", "always"),
		oneOf("settle", s.Settle, "", "require", "try", "off"),
		s.checkReady(),
		s.checkDurations(),
		s.Limits.check(),
		s.Confine.check(),
	}
	for _, sock := range s.Sockets {
		problems = append(problems, sock.check())
	}
	for _, e := range s.Env {
		if k, _, ok := strings.Cut(e, "="); !ok || k == "" || strings.ContainsRune(e, 0) {
			problems = append(problems, fmt.Errorf("env %q: not KEY=value", e))
		}
	}
	if s.Oneshot && s.Restart == "always" {
		problems = append(problems, errors.New("restart \"always\": a oneshot is meant to end; use \"on-failure\""))
	}
	if err := errors.Join(problems...); err != nil {
		return fmt.Errorf("service %s: %w", s.Name, err)
	}
	return nil
}

func (s Spec) checkExec() error {
	if len(s.Exec) == 0 || s.Exec[0] == "" {
		return errors.New("exec: no command")
	}
	for _, hooks := range [][]Hook{s.BeforeSnapshot, s.AfterRestore} {
		for _, h := range hooks {
			if err := h.check(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (h Hook) check() error {
	if h.URL != "" {
		if len(h.Exec) > 0 {
			return errors.New("hook: both a command and a URL")
		}
		_, err := parseTarget(h.URL)
		return err
	}
	if len(h.Exec) == 0 || h.Exec[0] == "" {
		return errors.New("hook: no command")
	}
	return nil
}

func (s Spec) checkReady() error {
	if s.Oneshot && (s.Ready.Kind != "" || s.Health.Check.Kind != "") {
		return errors.New("ready: a oneshot is ready when it has ended, and has no health")
	}
	if err := oneOf("health", s.Health.Check.Kind, "", "port", "http", "exec"); err != nil {
		return err
	}
	return errors.Join(s.Ready.check("ready"), s.Health.Check.check("health"))
}

func (r Ready) check(key string) error {
	if err := oneOf(key, r.Kind, "", "notify", "fd", "port", "http", "exec"); err != nil {
		return err
	}
	switch {
	case r.Kind == "http":
		if _, err := parseTarget(r.URL); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	case r.Kind == "exec" && (len(r.Exec) == 0 || r.Exec[0] == ""):
		return fmt.Errorf("%s \"exec\": no command", key)
	case r.Kind == "port" && r.Port == 0:
		return fmt.Errorf("%s \"port\": no port", key)
	}
	return nil
}

func (s Spec) checkDurations() error {
	for _, d := range []time.Duration{s.RestartDelay, s.RestartMax, s.StartWindow, s.ReadyTimeout, s.StopTimeout, s.Watchdog, s.Health.Interval, s.Health.Timeout} {
		if d < 0 {
			return fmt.Errorf("duration %v: negative", d)
		}
	}
	return nil
}

func oneOf(key, got string, allowed ...string) error {
	for _, a := range allowed {
		if got == a {
			return nil
		}
	}
	return fmt.Errorf("%s %q: not one of %s", key, got, strings.Join(allowed[1:], ", "))
}

// checkName keeps names usable as the name of a cgroup, of a socket's folder and in a log line.
func checkName(name string) error {
	if name == "" {
		return errors.New("service without a name")
	}
	if len(name) > 64 {
		return fmt.Errorf("service %q: name longer than 64 bytes", name)
	}
	for i, c := range []byte(name) {
		ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
			i > 0 && strings.IndexByte("._-@", c) >= 0
		if !ok {
			return fmt.Errorf("service %q: name may hold letters, digits and, after the first, . _ - @", name)
		}
	}
	return nil
}
