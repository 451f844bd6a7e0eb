package config

import (
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// problem is one finding of check, without its place in the file.
type problem struct{ key, problem, cure string }

// KnownKeys lists every key of the file, dotted; elements of lists of tables have no index.
func KnownKeys() []string { return keysOf(reflect.TypeFor[Config](), "") }

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

// checker gathers problems.
type checker struct{ found []problem }

func (c *checker) add(key, cure, text string) {
	c.found = append(c.found, problem{key, text, cure})
}

// wrong adds a problem that begins with the value.
func (c *checker) wrong(key, cure, value, text string) {
	c.add(key, cure, strconv.Quote(value)+text)
}

// choice wants value to be one of the words in allowed; a blank at its beginning allows the empty one.
func (c *checker) choice(key, value, allowed string) {
	words := strings.Split(allowed, " ")
	if !slices.Contains(words, value) {
		c.wrong(key, `write one of "`+strings.Join(words, `", "`)+`"`, value, " is not allowed")
	}
}

// levels are those of a log.
const levels = "info warning off"

func check(cfg *Config) []problem {
	var c checker
	c.hostname(cfg.Hostname)
	c.choice("log.console", cfg.Log.Console, levels)
	c.choice("log.kmsg", cfg.Log.Kmsg, levels)
	for i := range cfg.Mounts {
		c.mount(at("mount", i), &cfg.Mounts[i])
	}
	for i := range cfg.Interfaces {
		c.network(at("interface", i), &cfg.Interfaces[i])
	}
	c.choice("gate.mechanism", cfg.Gate.Mechanism, "auto nftables cgroup-bpf tc fib")
	for i := range cfg.Gate.Allow {
		c.allow(at("gate.allow", i), &cfg.Gate.Allow[i])
	}
	c.absolute("sysgenid.path", cfg.Sysgenid.Path)
	c.absolute("control.socket", cfg.Control.Socket)
	c.choice("sysgenid.mode", cfg.Sysgenid.Mode, "auto passthrough pagecache file")
	c.choice("quiesce.leftovers", cfg.Quiesce.Leftovers, "abort destroy keep")
	c.choice("adjust.late", cfg.Adjust.Late, "hold restart release")
	c.positive("quiesce.timeout", cfg.Quiesce.Timeout)
	c.positive("quiesce.settle-timeout", cfg.Quiesce.SettleTimeout)
	c.positive("quiesce.freeze-timeout", cfg.Quiesce.FreezeTimeout)
	c.positive("adjust.timeout", cfg.Adjust.Timeout)
	for _, path := range cfg.Quiesce.Freeze {
		if path != "all" {
			c.absolute("quiesce.freeze", path)
		}
	}
	cfg.EachHook(c.hook)
	c.services(cfg.Services)
	return c.found
}

// at is the key of a list's element.
func at(key string, i int) string { return key + "[" + strconv.Itoa(i) + "]" }

func (c *checker) mount(key string, m *Mount) {
	c.absolute(key+".target", m.Target)
	if m.Target == "/" {
		c.add(key+".target", "write another folder; the kernel command line's root= names the root", "the root is mounted already")
	}
	switch {
	case m.Type == "" && m.Source == "":
		c.add(key, "write source = \"/dev/vdb\", or type = \"tmpfs\"", "nothing to mount")
	case m.Type == "" && !m.bound():
		c.add(key+".type", "write \"9p\", \"virtiofs\" or what it is", "it can be found out of devices alone")
	}
}

func (c *checker) hostname(name string) {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-"
	if len(name) > 63 || strings.Trim(name, allowed) != "" || strings.HasPrefix(name, "-") {
		c.wrong("hostname", "use up to 63 letters, digits and hyphens", name, " is not a host name")
	}
}

func (c *checker) absolute(key, path string) {
	if !strings.HasPrefix(path, "/") {
		c.wrong(key, "write the whole path, from /", path, " is not an absolute path")
	}
}

func (c *checker) positive(key string, d Duration) {
	if d <= 0 {
		c.add(key, "write a duration such as \"10s\"", "must be longer than nothing")
	}
}

func (c *checker) network(key string, n *Interface) {
	if n.MAC != "" && !isMAC(n.MAC) {
		c.wrong(key+".mac", "write it as \"52:54:00:12:34:56\"", n.MAC, " is not a MAC address")
	}
	if n.MTU != 0 && (n.MTU < 68 || n.MTU > 65535) {
		c.add(key+".mtu", "write 68 to 65535 (bytes)", strconv.Itoa(n.MTU)+" is not an MTU")
	}
	c.choice(key+".dhcp", n.DHCP, " off ipv4 ipv6 both")
	for i, r := range n.Routes {
		if !r.To.IsValid() || !r.Via.IsValid() || r.To.Addr().Is4() != r.Via.Is4() {
			c.add(at(key+".route", i), "write to = \"10.1.0.0/16\" and via = \"10.0.2.2\"", "a prefix and a router of one family are wanted")
		}
	}
	if n.Gateway4.IsValid() && !n.Gateway4.Is4() {
		c.add(key+".gateway4", "write an IPv4 address here and IPv6 under gateway6", n.Gateway4.String()+" is not IPv4")
	}
	if n.Gateway6.IsValid() && !n.Gateway6.Is6() {
		c.add(key+".gateway6", "write an IPv6 address here and IPv4 under gateway4", n.Gateway6.String()+" is not IPv6")
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

func (c *checker) allow(key string, a *Allow) {
	c.choice(key+".protocol", a.Protocol, " tcp udp icmp")
	if a.Port != 0 && a.Protocol != "tcp" && a.Protocol != "udp" {
		c.add(key+".port", "add protocol = \"tcp\" or \"udp\"", "a port needs a protocol")
	}
	if *a == (Allow{}) {
		c.add(key, "name an interface, a prefix, a protocol or a port", "an empty rule would leave the gate open")
	}
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
	for i := range c.Services {
		s, key := &c.Services[i], at("service", i)
		f(key+".exec", s.Exec)
		f(key+".ready-exec", s.ReadyExec)
		f(key+".health.exec", s.Health.Exec)
	}
	c.EachHook(func(key string, h *Hook) { f(key+".exec", h.Exec) })
}
