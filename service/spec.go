package service

import (
	"errors"
	"strings"
	"syscall"
	"time"

	"rouse/internal/fmt"
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
	DefaultLogFileSize  = 1 << 20
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

	// User is a name, a number, or either with ":group"; empty is root. As in OCI images, a user that is in passwd gets
	// its group and supplementary groups from passwd and group, unless a group is given here or by Group.
	User   string
	Group  string   // name or number; wins over the group of User
	Groups []string // names or numbers of further supplementary groups

	After   []string // names of services that must be ready (oneshot: have ended well) before
	Oneshot bool     // runs to its end once; ready when it has exited with 0

	Restart      string        // "never" (also ""), "on-failure" or "always"
	RestartDelay time.Duration // before the first restart; doubles with each, with jitter
	RestartMax   time.Duration // longest delay
	StartLimit   int           // starts within StartWindow before the service counts as failed; -1: no limit
	StartWindow  time.Duration

	// OnExit is what the end of the service, with no restart to come, means for the machine: "none" (also "") is
	// nothing, "poweroff" or "reboot" is told to Options.Ended. A stop by hand is no end.
	OnExit string

	Ready        Ready
	ReadyTimeout time.Duration
	Health       Health
	StopTimeout  time.Duration  // from StopSignal to the kill of the whole cgroup
	StopSignal   syscall.Signal // SIGTERM if 0
	Watchdog     time.Duration  // longest pause between WATCHDOG=1 messages; 0 is off

	Limits  Limits
	Confine Confine
	Sockets []Socket
	LogFile LogFile
	FDStore int // how many descriptors the service may give us to keep over a restart

	Settle string // "require" (also ""), "try" or "off"; see Manager.Settle

	BeforeSnapshot []Hook
	AfterRestore   []Hook
	AfterRelease   []Hook // the same machine goes on: it was released, or the quiesce came to nothing
}

// LogFile is a file that a service's output is written to besides what Manager.Log keeps, each line with its time. It
// is written by rouse, as root, and never waited for: lines that it is too slow or too full for are left out and counted.
type LogFile struct {
	Path string // absolute; none if empty. It is never followed if it is a symbolic link
	Size uint64 // bytes at which a new one is begun; DefaultLogFileSize if 0
	Keep int    // how many of before are kept, as PATH.1 (the youngest), PATH.2, ...; 1 if 0, none if negative
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

// Hook is what is done for a service around a snapshot: a command is run, or somebody on this machine told. Manager.Hooks
// says what they are told and how they answer.
type Hook struct {
	Exec []string
	User string // of Exec: name, number, or either with ":group"; empty is the service's
	// URL is "http://HOST:PORT/PATH" with a loopback address or localhost, "unix:/SOCKET:/PATH" (HTTP too), "socket:/PATH" or
	// "notify:/PATH".
	URL     string
	Timeout time.Duration // DefaultHookTimeout if 0
}

func (s *Spec) setDefaults() {
	setDuration(&s.ReadyTimeout, DefaultReadyTimeout)
	setDuration(&s.StopTimeout, DefaultStopTimeout)
	setDuration(&s.RestartDelay, DefaultRestartDelay)
	setDuration(&s.RestartMax, DefaultRestartMax)
	setDuration(&s.StartWindow, DefaultStartWindow)
	setDuration(&s.Health.Interval, 30*time.Second)
	setDuration(&s.Health.Timeout, 5*time.Second)
	if s.StopSignal == 0 {
		s.StopSignal = syscall.SIGTERM
	}
	if s.StartLimit == 0 {
		s.StartLimit = DefaultStartLimit
	}
	if s.Health.Retries <= 0 {
		s.Health.Retries = 3
	}
	if s.LogFile.Size == 0 {
		s.LogFile.Size = DefaultLogFileSize
	}
	if s.LogFile.Keep == 0 {
		s.LogFile.Keep = 1
	}
	setString(&s.OnExit, "none")
	setString(&s.Restart, "never")
	setString(&s.Settle, "require")
	setString(&s.Dir, "/")
}

func setDuration(d *time.Duration, standard time.Duration) {
	if *d == 0 {
		*d = standard
	}
}

func setString(s *string, standard string) {
	if *s == "" {
		*s = standard
	}
}

// problems are what is wrong with a Spec.
type problems struct{ list []error }

func (p *problems) add(err error) {
	if err != nil {
		p.list = append(p.list, err)
	}
}

func (p *problems) quote(what, value, why string) { p.add(wrong(what, value, why)) }

func (p *problems) err() error { return errors.Join(p.list...) }

// wrong is an error about a value of the configuration, nil if there is no reason.
func wrong(what, value, why string) error {
	if why == "" {
		return nil
	}
	return fmt.Errorf("%s %q: %s", what, value, why)
}

// check finds what is wrong with s on its own; order finds what is wrong between services.
func (s *Spec) check() error {
	if err := checkName(s.Name); err != nil {
		return err
	}
	var p problems
	p.add(checkCommand("exec", s.Exec))
	p.add(oneOf("restart", s.Restart, "never", "on-failure", "always"))
	p.add(oneOf("settle", s.Settle, "require", "try", "off"))
	if s.LogFile.Path != "" && s.LogFile.Path[0] != '/' {
		p.quote("log file", s.LogFile.Path, "not absolute")
	}
	p.add(oneOf("on-exit", s.OnExit, "none", "poweroff", "reboot"))
	p.add(s.checkReady())
	p.add(s.checkDurations())
	p.add(s.Limits.check())
	p.add(s.Confine.check())
	for i := range s.Sockets {
		p.add(s.Sockets[i].check())
	}
	for _, e := range s.Env {
		if strings.IndexByte(e, '=') <= 0 || strings.IndexByte(e, 0) >= 0 {
			p.quote("env", e, "not KEY=value")
		}
	}
	if s.Oneshot && s.Restart == "always" {
		p.quote("restart", s.Restart, "a oneshot is meant to end; use \"on-failure\"")
	}
	return about("service", s.Name, p.err())
}

func checkCommand(key string, argv []string) error {
	if len(argv) == 0 || argv[0] == "" {
		return errors.New(key + ": no command")
	}
	return nil
}

func (s *Spec) checkReady() error {
	if s.Oneshot && (s.Ready.Kind != "" || s.Health.Check.Kind != "") {
		return errors.New("ready: a oneshot is ready when it has ended, and has no health")
	}
	if err := oneOf("health", s.Health.Check.Kind, "port", "http", "exec"); err != nil {
		return err
	}
	if err := s.Ready.check("ready"); err != nil {
		return err
	}
	return s.Health.Check.check("health")
}

func (r *Ready) check(key string) error {
	switch r.Kind {
	case "http":
		_, err := parseTarget(r.URL)
		return about(key, "", err)
	case "exec":
		return checkCommand(key+" \"exec\"", r.Exec)
	case "port":
		if r.Port == 0 {
			return errors.New(key + " \"port\": no port")
		}
	}
	return oneOf(key, r.Kind, "notify", "fd", "port", "http", "exec")
}

func (s *Spec) checkDurations() error {
	for _, d := range []time.Duration{s.RestartDelay, s.RestartMax, s.StartWindow, s.ReadyTimeout, s.StopTimeout, s.Watchdog, s.Health.Interval, s.Health.Timeout} {
		if d < 0 {
			return errors.New("duration " + d.String() + ": negative")
		}
	}
	return nil
}

// oneOf wants one of allowed, or nothing.
func oneOf(key, got string, allowed ...string) error {
	if got == "" || contains(allowed, got) {
		return nil
	}
	return wrong(key, got, "not one of "+strings.Join(allowed, ", "))
}

// checkName keeps names usable as the name of a cgroup, of a socket's folder and in a log line.
func checkName(name string) error {
	if name == "" {
		return errors.New("service without a name")
	}
	if len(name) > 64 {
		return wrong("service", name, "name longer than 64 bytes")
	}
	for i, c := range []byte(name) {
		ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
			i > 0 && strings.IndexByte("._-@", c) >= 0
		if !ok {
			return wrong("service", name, "name may hold letters, digits and, after the first, . _ - @")
		}
	}
	return nil
}
