package config

import (
	"strconv"
	"strings"

	"rouse/internal/definition"
)

func (c *checker) services(list []Service) {
	seen, known := map[string]bool{}, true
	for i := range list {
		s, key := &list[i], at("service", i)
		if seen[s.Name] {
			c.wrong(key+".name", "give each service a name of its own", s.Name, " is there twice")
		}
		seen[s.Name] = true
		c.service(key, s)
	}
	for i := range list {
		for _, a := range list[i].After {
			if !seen[a] || a == list[i].Name {
				c.add(at("service", i)+".after", "name another service of this file", "no service "+strconv.Quote(a))
				known = false
			}
		}
	}
	if !known {
		return
	}
	of := func(i int) (string, []string) { return list[i].Name, list[i].After }
	if _, i, cycle := definition.Order(len(list), of); cycle != "" {
		c.add(at("service", i)+".after", "take one of them away", "services wait for each other: "+cycle)
	}
}

// refuse adds a problem if there is a reason to.
func (c *checker) refuse(key, cure, value, why string) {
	if why != "" {
		c.wrong(key, cure, value, ": "+why)
	}
}

func (c *checker) service(key string, s *Service) {
	if s.Name == "" || len(s.Name) > 64 || strings.Trim(s.Name, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" || strings.IndexByte("-_.", s.Name[0]) >= 0 {
		c.wrong(key+".name", "use up to 64 lower-case letters, digits and, after the first, '-', '_' and '.'", s.Name, " is not a service name")
	}
	c.exec(key+".exec", s.Exec)
	for _, e := range s.Env {
		if name, _, ok := strings.Cut(e, "="); !ok || name == "" || strings.IndexByte(e, 0) >= 0 {
			c.wrong(key+".env", "write \"NAME=value\"", e, " is not an assignment")
		}
	}
	if s.Dir != "" {
		c.absolute(key+".dir", s.Dir)
	}
	c.choice(key+".restart", s.Restart, "never on-failure always")
	c.choice(key+".settle", s.Settle, "require try off")
	c.choice(key+".on-exit", s.OnExit, "none poweroff reboot")
	c.choice(key+".seccomp", s.Seccomp, "none basic")
	c.choice(key+".ready", s.Ready, "started notify fd port http exec")
	c.probe(key+".ready-", s.Ready, s.ReadyPort, s.ReadyURL, s.ReadyExec)
	c.choice(key+".health.check", s.Health.Check, " port http exec")
	c.probe(key+".health.", s.Health.Check, s.Health.Port, s.Health.URL, s.Health.Exec)
	if s.Oneshot {
		c.oneshot(key, s)
	}
	if s.LogFile.Path != "" {
		c.absolute(key+".log.path", s.LogFile.Path)
	}
	c.confine(key, s)
	if Signal(s.StopSignal) == 0 {
		c.wrong(key+".stop-signal", "write a name such as \"TERM\" or \"QUIT\"", s.StopSignal, " is not a signal")
	}
	for i, k := range s.Sockets {
		key := at(key+".socket", i)
		c.refuse(key+".name", "write a plain word", k.Name, definition.CheckSocketName(k.Name))
		_, _, _, why := definition.ParseListen(k.Listen)
		c.refuse(key+".listen", "write \"tcp:0.0.0.0:443\", \"udp:[::]:53\" or \"unix:/run/web.sock\"", k.Listen, why)
	}
}

// confine checks what the service may do less than its user could.
func (c *checker) confine(key string, s *Service) {
	if s.Nice < -20 || s.Nice > 19 {
		c.add(key+".nice", "write -20 to 19", strconv.Itoa(s.Nice)+" is not a nice value")
	}
	if s.OOMScoreAdj < -1000 || s.OOMScoreAdj > 1000 {
		c.add(key+".oom-score-adj", "write -1000 to 1000", strconv.Itoa(s.OOMScoreAdj)+" is out of range")
	}
	for _, path := range s.ReadOnly {
		c.absolute(key+".read-only", path)
	}
	for i, r := range s.Rlimits {
		if definition.Rlimit(r.Name) < 0 {
			c.wrong(at(key+".rlimits", i), "write a name such as \"nofile\", \"nproc\" or \"core\", as setrlimit(2) has them in small letters", r.Name, " is not a limit")
		}
	}
	for i, name := range s.Capabilities {
		if definition.Capability(name) < 0 {
			c.wrong(at(key+".capabilities", i), "write a name of capabilities(7) such as \"net_bind_service\"", name, " is not a capability")
		}
	}
}

// oneshot refuses what contradicts the end that such a service comes to.
func (c *checker) oneshot(key string, s *Service) {
	if s.Ready != "started" {
		c.add(key+".ready", "take it or oneshot away", "a oneshot is ready when it has ended")
	}
	if s.Health.Check != "" {
		c.add(key+".health.check", "write \"\", or take oneshot away", "a oneshot is meant to end, and has no health")
	}
	if s.Restart == "always" {
		c.add(key+".restart", "write \"on-failure\" or \"never\"", "a oneshot is meant to end")
	}
}

// probe checks what belongs to one way of asking a service, and that nothing is there for another. Its keys begin
// with prefix.
func (c *checker) probe(prefix, kind string, port uint16, url string, argv []string) {
	if (kind == "port") != (port != 0) {
		c.add(prefix+"port", "write \"port\" together with its number, as ready = \"port\" and ready-port = 443", "the kind is "+strconv.Quote(kind)+" and the port "+strconv.Itoa(int(port)))
	}
	if (kind == "http") != (url != "") {
		c.add(prefix+"url", "write \"http\" together with a URL, as ready = \"http\" and ready-url = \"http://127.0.0.1:80/\"", "the kind is "+strconv.Quote(kind)+" and the URL "+strconv.Quote(url))
	}
	if url != "" {
		_, why := definition.ParseTarget(url)
		c.refuse(prefix+"url", "write \"http://127.0.0.1:80/path\" or \"unix:/socket:/path\"", url, why)
	}
	if kind == "exec" || len(argv) > 0 {
		c.exec(prefix+"exec", argv)
	}
}

func (c *checker) hook(key string, h *Hook) {
	switch {
	case h.URL == "":
		c.exec(key+".exec", h.Exec)
	case len(h.Exec)+len(h.User) > 0:
		c.add(key, "keep one of the two", "both a program or its user, and a URL")
	default:
		c.refuse(key+".url", "write \"http://127.0.0.1:80/path\", \"unix:/socket:/path\", \"socket:/path\" or \"notify:/path\"", h.URL, definition.CheckHook(h.URL))
	}
}

func (c *checker) exec(key string, argv []string) {
	if len(argv) == 0 {
		c.add(key, "write exec = [\"/path/of/program\", \"argument\"]", "nothing to run")
		return
	}
	c.absolute(key, argv[0])
}
