package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"rouse/config"
	"rouse/config/toml"
	"rouse/rootfs/image"
)

// said is what an input tells of itself: the lowest layer of the configuration.
type said struct {
	text    []byte   // of /etc/rouse.toml
	env     []byte   // an environment of both, if the user has one; else nil
	folders []string // that have to be there
	notes   []string
}

// containerPath is what container engines give to an image without a PATH of its own.
const containerPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// says asks the input. Nil: it tells nothing, as a folder does.
func (p *plan) says(c *image.Contents, user *toml.Value) (*said, error) {
	name, table, others := mainService(user)
	if p.container == nil {
		if p.program == "" || others && !table.Has("name") || table.Has("exec") {
			return nil, nil // the program went to the place of the service that is there
		}
		w := &writer{user: table}
		w.list("exec", []string{p.programPath()})
		return w.said(name, "the program")
	}
	o := p.container.Config
	if others && !table.Has("name") {
		s := &said{folders: volumes(o)}
		s.notes = []string{`the image's own command is not run, because the configuration has services of its own; add a [[service]] with name = "main" and without exec to run it beside them`}
		return s, nil
	}
	argv := slices.Concat(o.Entrypoint, o.Cmd)
	if len(argv) == 0 && !table.Has("exec") {
		return &said{folders: volumes(o)}, nil
	}
	w := &writer{user: table}
	w.service(c, o, argv)
	s, err := w.said(name, "what the image says of itself")
	if err != nil {
		return nil, err
	}
	s.folders = append(s.folders, volumes(o)...)
	return s, nil
}

// mainService is the service that the input is: the user's one without exec, the one named main, or a new one. others: there
// are services.
func mainService(user *toml.Value) (name string, table *toml.Value, others bool) {
	table, name = &toml.Value{Kind: toml.Table}, "main"
	list := user.Get("service")
	if list == nil {
		return name, table, false
	}
	var bare []*toml.Value
	for _, s := range list.List {
		if n := s.Get("name"); n != nil && n.Text == "main" {
			return name, s, true
		}
		if !s.Has("exec") && s.Get("name") != nil {
			bare = append(bare, s)
		}
	}
	if len(bare) == 1 {
		return bare[0].Get("name").Text, bare[0], true
	}
	return name, table, len(list.List) > 0
}

// volumes are made where the image lacks them, as engines do. What is written to them stays in the guest's root.
func volumes(o v1.Config) []string {
	var list []string
	for v := range o.Volumes {
		if path.IsAbs(v) {
			list = append(list, path.Clean(v))
		}
	}
	slices.Sort(list)
	return list
}

// writer writes the keys that the user has not.
type writer struct {
	user    *toml.Value
	b       bytes.Buffer
	env     []byte
	folders []string
	notes   []string
	err     error
}

func (w *writer) note(format string, args ...any) {
	w.notes = append(w.notes, fmt.Sprintf(format, args...))
}

func (w *writer) fail(err error) {
	if w.err == nil {
		w.err = err
	}
}

// text writes a key unless the user has it, or there is nothing to say.
func (w *writer) text(key, value string) {
	if value == "" || w.user.Has(key) {
		return
	}
	q, err := quote(value)
	if err != nil {
		w.fail(err)
	}
	fmt.Fprintf(&w.b, "%s = %s\n", key, q)
}

func (w *writer) list(key string, values []string) {
	if len(values) > 0 && !w.user.Has(key) {
		fmt.Fprintf(&w.b, "%s = %s\n", key, w.array(values))
	}
}

func (w *writer) array(values []string) string {
	var all []string
	for _, v := range values {
		q, err := quote(v)
		if err != nil {
			w.fail(err)
		}
		all = append(all, q)
	}
	return "[" + strings.Join(all, ", ") + "]"
}

// said is the finished text.
func (w *writer) said(name, who string) (*said, error) {
	if w.err != nil {
		return nil, fmt.Errorf("%s: %w", ofTheImage, w.err)
	}
	q, err := quote(name)
	if err != nil {
		return nil, err
	}
	head := fmt.Sprintf("# Written by rouse build from %s; see docs/images.md.\n[[service]]\nname = %s\n", who, q)
	s := &said{text: append([]byte(head), w.b.Bytes()...), folders: w.folders, notes: w.notes}
	if w.env != nil {
		s.env = fmt.Appendf(nil, "[[service]]\nname = %s\n%s", q, w.env)
	}
	return s, nil
}

// service writes what a container engine would do with the image.
func (w *writer) service(c *image.Contents, o v1.Config, argv []string) {
	env := w.environment(o.Env)
	dir := path.Join("/", o.WorkingDir)
	if own := w.user.Get("dir"); own != nil {
		dir = own.Text
	} else if dir != "/" {
		w.folders = append(w.folders, dir)
	}
	search := containerPath
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok && v != "" {
			search = v
		}
	}
	find := func(argv []string) []string {
		file, err := c.LookPath(argv[0], search, dir)
		if err != nil {
			w.fail(err)
		}
		return append([]string{file}, argv[1:]...)
	}
	if !w.user.Has("exec") {
		w.list("exec", find(argv))
	}
	if dir != "/" {
		w.text("dir", dir)
	}
	user, group, _ := strings.Cut(o.User, ":")
	if !w.user.Has("user") { // a group belongs to its user
		w.text("user", user)
		w.text("group", group)
	}
	w.stopSignal(o.StopSignal)
	check := w.health(o, find)
	w.ready(o, check)
}

// environment is the image's with the user's above it, name by name.
func (w *writer) environment(of []string) []string {
	var env []string
	for _, e := range of {
		if name, _, ok := strings.Cut(e, "="); !ok || name == "" {
			w.note("the image's environment has %q, which is no NAME=value: left out", e)
			continue
		}
		env = setEnv(env, e)
	}
	own := w.user.Get("env")
	if own == nil || own.Kind != toml.Array {
		w.list("env", env)
		return env
	}
	if len(env) == 0 {
		return nil
	}
	for _, v := range own.List {
		env = setEnv(env, v.Text)
	}
	w.env = []byte("env = " + w.array(env) + "\n")
	return env
}

func setEnv(env []string, e string) []string {
	name, _, _ := strings.Cut(e, "=")
	for i := range env {
		if strings.HasPrefix(env[i], name+"=") {
			env[i] = e
			return env
		}
	}
	return append(env, e)
}

// stopSignal takes a name or a number.
func (w *writer) stopSignal(s string) {
	if n, err := strconv.Atoi(s); err == nil {
		for _, name := range []string{"HUP", "INT", "QUIT", "KILL", "TERM", "USR1", "USR2", "WINCH", "PWR"} {
			if int(config.Signal(name)) == n {
				s = name
			}
		}
	}
	s = strings.ToUpper(s)
	if s != "" && config.Signal(s) == 0 {
		w.note("the image's stop signal %s is not known here: TERM is used; set stop-signal", s)
		return
	}
	w.text("stop-signal", strings.TrimPrefix(s, "SIG"))
}

// health is the image's HEALTHCHECK: {"CMD", argv...}, {"CMD-SHELL", line} or {"NONE"}.
func (w *writer) health(o v1.Config, find func([]string) []string) []string {
	h := o.Healthcheck
	if h == nil || len(h.Test) == 0 || h.Test[0] == "NONE" {
		return nil
	}
	var argv []string
	switch {
	case h.Test[0] == "CMD" && len(h.Test) > 1:
		argv = find(h.Test[1:])
	case h.Test[0] == "CMD-SHELL" && len(h.Test) == 2:
		shell := o.Shell
		if len(shell) == 0 {
			shell = []string{"/bin/sh", "-c"}
		}
		argv = find(append(slices.Clone(shell), h.Test[1]))
	default:
		w.note("the image's health check %q is of no form that is known: left out", h.Test)
		return nil
	}
	if !w.user.Has("health.check") {
		w.text("health.check", "exec")
		w.list("health.exec", argv)
	}
	for _, d := range []struct {
		key string
		d   time.Duration
	}{{"health.interval", h.Interval}, {"health.timeout", h.Timeout}} {
		if d.d > 0 {
			w.text(d.key, d.d.String())
		}
	}
	if h.Retries > 0 && !w.user.Has("health.retries") {
		fmt.Fprintf(&w.b, "health.retries = %d\n", h.Retries)
	}
	if !w.user.Has("ready-timeout") && h.StartPeriod > defaultReadyTimeout {
		w.text("ready-timeout", h.StartPeriod.String())
	}
	return argv
}

// defaultReadyTimeout is what ready-timeout is if nobody says anything: docs/configuration.md.
const defaultReadyTimeout = 30 * time.Second

// ready: a snapshot is only worth something of a server that serves. A health check says it best; else the port, the lowest if there
// are several, that the image says it listens on.
func (w *writer) ready(o v1.Config, check []string) {
	for _, key := range []string{"ready", "ready-port", "ready-url", "ready-exec", "oneshot"} {
		if w.user.Has(key) {
			return
		}
	}
	if check != nil {
		w.text("ready", "exec")
		w.list("ready-exec", check)
		return
	}
	ports, err := tcpPorts(o)
	if err != nil {
		w.note("%v: left out", err)
	}
	if len(ports) == 0 {
		w.note(`the image exposes no port and has no health check, so it counts as ready as soon as it is started; set ready = "port" or another kind`)
		return
	}
	w.text("ready", "port")
	fmt.Fprintf(&w.b, "ready-port = %d\n", ports[0])
}

// tcpPorts are the TCP ports that an image exposes, sorted: "80/tcp", "80", "8000-8010/tcp".
func tcpPorts(o v1.Config) ([]uint16, error) {
	var ports []uint16
	var errs []error
	for _, e := range slices.Sorted(maps.Keys(o.ExposedPorts)) {
		text, protocol, _ := strings.Cut(e, "/")
		if protocol = strings.ToLower(protocol); protocol != "" && protocol != "tcp" {
			continue
		}
		first, last, _ := strings.Cut(text, "-")
		from, err := strconv.ParseUint(first, 10, 16)
		to, err2 := strconv.ParseUint(cmp.Or(last, first), 10, 16)
		if err != nil || err2 != nil || from == 0 || to < from {
			errs = append(errs, fmt.Errorf("the image exposes %q, which is no port", e))
			continue
		}
		for n := from; n <= to; n++ {
			ports = append(ports, uint16(n))
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports), errors.Join(errs...)
}
