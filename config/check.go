package config

import (
	"reflect"
	"slices"
	"strings"

	"rouse/internal/fmt"
)

// problem is one finding of check, without its place in the file.
type problem struct{ key, problem, cure string }

// knownKeys are all dotted keys that Config has, for suggestions and for the documentation's test.
var knownKeys = keysOf(reflect.TypeFor[Config](), "")

func keysOf(t reflect.Type, prefix string) []string {
	var keys []string
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Tag == "" {
			continue // inside of a type that has a text of its own
		}
		name := prefix + f.Tag.Get("toml")
		keys = append(keys, name)
		ft := f.Type
		if ft.Kind() == reflect.Slice {
			ft = ft.Elem()
		}
		if ft.Kind() == reflect.Struct && ft.PkgPath() == t.PkgPath() {
			keys = append(keys, keysOf(ft, name+".")...)
		}
	}
	return keys
}

// KnownKeys lists every key of the file, dotted; elements of lists of tables have no index.
func KnownKeys() []string { return slices.Clone(knownKeys) }

var choices = map[string][]string{
	"gate.mechanism":    {"auto", "nftables", "cgroup-bpf", "tc", "fib"},
	"sysgenid.mode":     {"auto", "passthrough", "pagecache", "file"},
	"quiesce.leftovers": {"abort", "destroy", "keep"},
	"adjust.late":       {"hold", "restart", "release"},
	"service.restart":   {"never", "on-failure", "always"},
	"service.ready":     {"started", "notify", "fd", "port", "http", "exec"},
	"health.check":      {"", "port", "http", "exec"},
	"service.on-exit":   {"none", "poweroff", "reboot"},
	"service.seccomp":   {"none", "basic"},
	"interface.dhcp":    {"", "off", "ipv4", "ipv6", "both"},
	"log.level":         {"info", "warning", "off"},
	"service.settle":    {"require", "try", "off"},
	"allow.protocol":    {"", "tcp", "udp", "icmp"},
}

// checker gathers problems.
type checker struct{ found []problem }

func (c *checker) add(key, cure, format string, args ...any) {
	c.found = append(c.found, problem{key, fmt.Sprintf(format, args...), cure})
}

func (c *checker) choice(key, table, value string) {
	if allowed := choices[table]; !slices.Contains(allowed, value) {
		c.add(key, "write one of "+quoted(allowed), "%q is not allowed", value)
	}
}

func check(cfg *Config) []problem {
	var c checker
	c.hostname(cfg.Hostname)
	c.choice("log.console", "log.level", cfg.Log.Console)
	c.choice("log.kmsg", "log.level", cfg.Log.Kmsg)
	for i, m := range cfg.Mounts {
		c.mount(fmt.Sprintf("mount[%d]", i), m)
	}
	for i, n := range cfg.Interfaces {
		c.network(fmt.Sprintf("interface[%d]", i), n)
	}
	c.choice("gate.mechanism", "gate.mechanism", cfg.Gate.Mechanism)
	for i, a := range cfg.Gate.Allow {
		c.allow(fmt.Sprintf("gate.allow[%d]", i), a)
	}
	c.absolute("sysgenid.path", cfg.Sysgenid.Path)
	c.absolute("control.socket", cfg.Control.Socket)
	c.choice("sysgenid.mode", "sysgenid.mode", cfg.Sysgenid.Mode)
	c.choice("quiesce.leftovers", "quiesce.leftovers", cfg.Quiesce.Leftovers)
	c.choice("adjust.late", "adjust.late", cfg.Adjust.Late)
	c.positive("quiesce.timeout", cfg.Quiesce.Timeout)
	c.positive("quiesce.settle-timeout", cfg.Quiesce.SettleTimeout)
	c.positive("quiesce.freeze-timeout", cfg.Quiesce.FreezeTimeout)
	c.positive("adjust.timeout", cfg.Adjust.Timeout)
	for _, path := range cfg.Quiesce.Freeze {
		if path != "all" {
			c.absolute("quiesce.freeze", path)
		}
	}
	cfg.eachHook(c.hook)
	c.services(cfg.Services)
	return c.found
}

func (c *checker) mount(key string, m Mount) {
	c.absolute(key+".target", m.Target)
	if m.Type == "" && m.Source == "" {
		c.add(key, "write source = \"/dev/vdb\", or type = \"tmpfs\"", "nothing to mount")
	}
}

func (c *checker) hostname(name string) {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-"
	if len(name) > 63 || strings.Trim(name, allowed) != "" || strings.HasPrefix(name, "-") {
		c.add("hostname", "use up to 63 letters, digits and hyphens", "%q is not a host name", name)
	}
}

func (c *checker) absolute(key, path string) {
	if !strings.HasPrefix(path, "/") {
		c.add(key, "write the whole path, from /", "%q is not an absolute path", path)
	}
}

func (c *checker) positive(key string, d Duration) {
	if d <= 0 {
		c.add(key, "write a duration such as \"10s\"", "must be longer than nothing")
	}
}

func (c *checker) network(key string, n Interface) {
	if n.MAC != "" && !isMAC(n.MAC) {
		c.add(key+".mac", "write it as \"52:54:00:12:34:56\"", "%q is not a MAC address", n.MAC)
	}
	if n.MTU != 0 && (n.MTU < 68 || n.MTU > 65535) {
		c.add(key+".mtu", "write 68 to 65535 (bytes)", "%d is not an MTU", n.MTU)
	}
	c.choice(key+".dhcp", "interface.dhcp", n.DHCP)
	for i, r := range n.Routes {
		if !r.To.IsValid() || !r.Via.IsValid() || r.To.Addr().Is4() != r.Via.Is4() {
			c.add(fmt.Sprintf("%s.route[%d]", key, i), "write to = \"10.1.0.0/16\" and via = \"10.0.2.2\"", "a prefix and a router of one family are wanted")
		}
	}
	if n.Gateway4.IsValid() && !n.Gateway4.Is4() {
		c.add(key+".gateway4", "write an IPv4 address here and IPv6 under gateway6", "%s is not IPv4", n.Gateway4)
	}
	if n.Gateway6.IsValid() && !n.Gateway6.Is6() {
		c.add(key+".gateway6", "write an IPv6 address here and IPv4 under gateway4", "%s is not IPv6", n.Gateway6)
	}
}

// isMAC knows what the guest's network setup reads: six bytes with ':' or '-' between them. Package net
// would take longer addresses too, and is too heavy for /init.
func isMAC(s string) bool {
	if len(s) != len("52:54:00:12:34:56") {
		return false
	}
	for i := range len(s) {
		allowed := "0123456789abcdefABCDEF"
		if i%3 == 2 {
			allowed = s[2:3]
		}
		if strings.IndexByte(allowed, s[i]) < 0 {
			return false
		}
	}
	return s[2] == ':' || s[2] == '-'
}

func (c *checker) allow(key string, a Allow) {
	c.choice(key+".protocol", "allow.protocol", a.Protocol)
	if a.Port != 0 && a.Protocol != "tcp" && a.Protocol != "udp" {
		c.add(key+".port", "add protocol = \"tcp\" or \"udp\"", "a port needs a protocol")
	}
	if a == (Allow{}) {
		c.add(key, "name an interface, a prefix, a protocol or a port", "an empty rule would leave the gate open")
	}
}

func (c *checker) services(list []Service) {
	seen := map[string]bool{}
	for i, s := range list {
		key := fmt.Sprintf("service[%d]", i)
		if seen[s.Name] {
			c.add(key+".name", "give each service a name of its own", "%q is there twice", s.Name)
		}
		seen[s.Name] = true
		c.service(key, s)
	}
	for i, s := range list {
		for _, a := range s.After {
			if !seen[a] || a == s.Name {
				c.add(fmt.Sprintf("service[%d].after", i), "name another service of this file", "no service %q", a)
			}
		}
	}
}

func (c *checker) service(key string, s Service) {
	if s.Name == "" || strings.Trim(s.Name, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" || strings.HasPrefix(s.Name, ".") {
		c.add(key+".name", "use lower-case letters, digits, '-', '_' and '.'", "%q is not a service name", s.Name)
	}
	c.exec(key+".exec", s.Exec)
	for _, e := range s.Env {
		if name, _, ok := strings.Cut(e, "="); !ok || name == "" {
			c.add(key+".env", "write \"NAME=value\"", "%q is not an assignment", e)
		}
	}
	if s.Dir != "" {
		c.absolute(key+".dir", s.Dir)
	}
	c.choice(key+".restart", "service.restart", s.Restart)
	c.choice(key+".settle", "service.settle", s.Settle)
	c.choice(key+".on-exit", "service.on-exit", s.OnExit)
	c.choice(key+".seccomp", "service.seccomp", s.Seccomp)
	c.choice(key+".ready", "service.ready", s.Ready)
	c.probe(key+".ready-", s.Ready, s.ReadyPort, s.ReadyURL, s.ReadyExec)
	c.choice(key+".health.check", "health.check", s.Health.Check)
	c.probe(key+".health.", s.Health.Check, s.Health.Port, s.Health.URL, s.Health.Exec)
	if s.Nice < -20 || s.Nice > 19 {
		c.add(key+".nice", "write -20 to 19", "%d is not a nice value", s.Nice)
	}
	if s.OOMScoreAdj < -1000 || s.OOMScoreAdj > 1000 {
		c.add(key+".oom-score-adj", "write -1000 to 1000", "%d is out of range", s.OOMScoreAdj)
	}
	if s.LogFile.Path != "" {
		c.absolute(key+".log.path", s.LogFile.Path)
	}
	for _, path := range s.ReadOnly {
		c.absolute(key+".read-only", path)
	}
	if Signal(s.StopSignal) == 0 {
		c.add(key+".stop-signal", "write a name such as \"TERM\" or \"QUIT\"", "%q is not a signal", s.StopSignal)
	}
}

// probe checks what belongs to one way of asking a service, and that nothing is there for another. Its keys begin
// with prefix.
func (c *checker) probe(prefix, kind string, port uint16, url string, argv []string) {
	if (kind == "port") != (port != 0) {
		c.add(prefix+"port", "write \"port\" together with its number, as ready = \"port\" and ready-port = 443", "the kind is %q and the port %d", kind, port)
	}
	if (kind == "http") != (url != "") {
		c.add(prefix+"url", "write \"http\" together with a URL, as ready = \"http\" and ready-url = \"http://127.0.0.1:80/\"", "the kind is %q and the URL %q", kind, url)
	}
	if kind == "exec" || len(argv) > 0 {
		c.exec(prefix+"exec", argv)
	}
}

func (c *checker) hook(key string, h *Hook) {
	switch {
	case h.URL == "":
		c.exec(key+".exec", h.Exec)
	case len(h.Exec) > 0:
		c.add(key, "keep one of the two", "both a program and a URL")
	}
}

func (c *checker) exec(key string, argv []string) {
	if len(argv) == 0 {
		c.add(key, "write exec = [\"/path/of/program\", \"argument\"]", "nothing to run")
		return
	}
	c.absolute(key, argv[0])
}

func quoted(list []string) string {
	q := make([]string, len(list))
	for i, s := range list {
		q[i] = fmt.Sprintf("%q", s)
	}
	return strings.Join(q, ", ")
}

// CheckFiles asks exists about every program that the configuration would run, and reports those that
// are not there as Load reports its findings; its error says the cure. The host asks it of an image, the guest of its own root.
func (d Document) CheckFiles(exists func(path string) error) []error {
	var errs []error
	d.Config.programs(func(key string, argv []string) {
		if len(argv) == 0 {
			return
		}
		if err := exists(argv[0]); err != nil {
			errs = append(errs, d.error(problem{key: key, problem: err.Error()}))
		}
	})
	return errs
}

// programs calls f for every command, with its key.
func (c *Config) programs(f func(key string, argv []string)) {
	for i, s := range c.Services {
		key := fmt.Sprintf("service[%d]", i)
		f(key+".exec", s.Exec)
		f(key+".ready-exec", s.ReadyExec)
		f(key+".health.exec", s.Health.Exec)
	}
	c.eachHook(func(key string, h *Hook) { f(key+".exec", h.Exec) })
}
