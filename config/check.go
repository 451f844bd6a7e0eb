package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"rouse/config/toml"
)

// problem is one finding of check, without its place in the file.
type problem struct{ key, problem, cure string }

// knownKeys are all dotted keys that Config has, for suggestions and for the documentation's test.
var knownKeys = keysOf(reflect.TypeFor[Config](), "")

func keysOf(t reflect.Type, prefix string) []string {
	var keys []string
	for i := range t.NumField() {
		f := t.Field(i)
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
	"service.ready":     {"started", "notify", "port"},
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
	c.services(cfg.Services)
	return c.found
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
	c.choice(key+".ready", "service.ready", s.Ready)
	c.choice(key+".settle", "service.settle", s.Settle)
	if (s.Ready == "port") != (s.ReadyPort != 0) {
		c.add(key+".ready-port", "write ready = \"port\" together with ready-port = 443", "ready is %q and ready-port is %d", s.Ready, s.ReadyPort)
	}
	if _, ok := Signals[strings.TrimPrefix(s.StopSignal, "SIG")]; !ok {
		c.add(key+".stop-signal", "write a name such as \"TERM\" or \"QUIT\"", "%q is not a signal", s.StopSignal)
	}
	for i, h := range s.BeforeSnapshot {
		c.exec(fmt.Sprintf("%s.before-snapshot[%d].exec", key, i), h.Exec)
	}
	for i, h := range s.AfterRestore {
		c.exec(fmt.Sprintf("%s.after-restore[%d].exec", key, i), h.Exec)
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
// are not there as Parse reports its findings; its error says the cure. The host asks it of an image, the guest of its own root.
func CheckFiles(file string, text []byte, cfg Config, exists func(path string) error) []error {
	doc, err := toml.Parse(text)
	if err != nil {
		return []error{refusal(file, err)}
	}
	var errs []error
	ask := func(key string, argv []string) {
		if len(argv) == 0 {
			return
		}
		if err := exists(argv[0]); err != nil {
			errs = append(errs, &Error{File: file, Line: line(doc, key), Key: key, Problem: err.Error()})
		}
	}
	for i, s := range cfg.Services {
		key := fmt.Sprintf("service[%d]", i)
		ask(key+".exec", s.Exec)
		for j, h := range s.BeforeSnapshot {
			ask(fmt.Sprintf("%s.before-snapshot[%d].exec", key, j), h.Exec)
		}
		for j, h := range s.AfterRestore {
			ask(fmt.Sprintf("%s.after-restore[%d].exec", key, j), h.Exec)
		}
	}
	return errs
}
