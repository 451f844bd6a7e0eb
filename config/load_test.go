package config

import (
	"slices"
	"strings"
	"testing"
)

// Later sources win key by key; lists of named tables are merged, others replaced.
func TestLoadLayers(t *testing.T) {
	sources := []Source{
		{Name: "/etc/rouse.toml", Text: []byte(good)},
		{Name: "/etc/rouse.d/10.toml", Text: []byte("hostname = \"two\"\n[quiesce]\nleftovers = \"keep\"\n[[service]]\nname = \"web\"\nnice = 5\n[[service]]\nname = \"more\"\nexec = [\"/more\"]\ncpus = 0.5\nmemory-max = \"64M\"\n")},
		{Name: "fw_cfg opt/rouse/hostname", Text: []byte("hostname=three"), Setting: true},
		{Name: CommandLine, Text: []byte("quiesce.timeout=9s"), Setting: true},
	}
	d, err := Load(sources)
	if err != nil {
		t.Fatal(err)
	}
	c := d.Config
	if c.Hostname != "three" || c.Quiesce.Leftovers != "keep" || c.Quiesce.Timeout.String() != "9s" {
		t.Errorf("hostname %q, quiesce %+v", c.Hostname, c.Quiesce)
	}
	if len(c.Services) != 2 || c.Services[0].Nice != 5 || c.Services[0].Exec[0] != "/usr/bin/webserver" || c.Services[1].MemoryMax != 64<<20 {
		t.Errorf("services %+v", c.Services)
	}
	want := []Setting{
		{"hostname", `"three"`, "fw_cfg opt/rouse/hostname"},
		{"quiesce.timeout", `"9s"`, CommandLine},
		{"quiesce.leftovers", `"keep"`, "/etc/rouse.d/10.toml:3"},
		{"quiesce.watchdog", `"1m0s"`, "default"},
		{"service[0].nice", "5", "/etc/rouse.d/10.toml:6"},
		{"service[0].exec", `["/usr/bin/webserver", "-listen", ":443"]`, "/etc/rouse.toml:13"},
		{"service[1].cpus", "0.5", "/etc/rouse.d/10.toml:10"},
		{"interface[0].gateway4", `"10.0.2.2"`, "/etc/rouse.toml:6"},
	}
	for _, w := range want {
		if !slices.Contains(d.Settings(), w) {
			t.Errorf("no setting %+v", w)
		}
	}
}

// A mistake is told with the source that it is in.
func TestLoadRefusesWithSource(t *testing.T) {
	_, err := Load([]Source{
		{Name: "/etc/rouse.toml", Text: []byte(good)},
		{Name: "/etc/rouse.d/10.toml", Text: []byte("\n[adjust]\nlate = \"never\"\n")},
		{Name: "fw_cfg opt/rouse/hostname", Text: []byte("hostname=a b"), Setting: true},
	})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{`/etc/rouse.d/10.toml:3: adjust.late: "never" is not allowed`, `fw_cfg opt/rouse/hostname: hostname: "a b" is not a host name`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q lacks %q", err, want)
		}
	}
}

func TestValues(t *testing.T) {
	tests := map[string]struct{ text, want string }{
		"size":            {"memory-max = \"1.5M\"", "not a size"},
		"size overflow":   {"memory-max = \"99999999999999G\"", "not a size"},
		"cores":           {"cpus = 0.001", "not a number of cores"},
		"cores not":       {"cpus = \"NaN\"", "not a number of cores"},
		"limit":           {"rlimits = [\"nofile\"]", "not a limit"},
		"limit order":     {"rlimits = [\"nofile=2:1\"]", "not a limit"},
		"mode":            {"socket = [{listen = \"unix:/a\", mode = \"rw\"}]", "not a file's mode"},
		"nice":            {"nice = 20", "not a nice value"},
		"url without":     {"ready = \"http\"", "ready-url"},
		"health port":     {"health.check = \"port\"", "health.port"},
		"probe of others": {"ready = \"notify\"\nready-port = 80", "ready-port"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("f", []byte("[[service]]\nname = \"a\"\nexec = [\"/a\"]\n"+tt.text), nil)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "f:") {
				t.Errorf("error = %v, want %q", err, tt.want)
			}
		})
	}
}

// What the supervisor would refuse in the guest is refused where the file is written, with its line and a cure.
func TestDefinitions(t *testing.T) {
	tests := map[string]struct{ text, want, cure string }{
		"ready URL":          {"ready = \"http\"\nready-url = \"https://x/\"", `f:5: service[0].ready-url: "https://x/": not http://HOST:PORT/PATH`, `"http://127.0.0.1:80/path"`},
		"ready URL's host":   {"ready = \"http\"\nready-url = \"http://web/\"", `f:5: service[0].ready-url: "http://web/": host "web": no IP address and not localhost`, `"unix:/socket:/path"`},
		"health URL":         {"[service.health]\ncheck = \"http\"\nurl = \"http://127.0.0.1:99999/\"", `f:6: service[0].health.url: "http://127.0.0.1:99999/": port is not 1 to 65535`, `"http://127.0.0.1:80/path"`},
		"hook elsewhere":     {"[[service.after-restore]]\nurl = \"http://192.0.2.1/\"", `f:5: service[0].after-restore[0].url: "http://192.0.2.1/": not on this machine`, `"socket:/path"`},
		"hook's scheme":      {"before-snapshot = [{url = \"notify:/ok\"},\n {url = \"ftp:/x\"}]", `f:5: service[0].before-snapshot[1].url: "ftp:/x": not http://`, `"notify:/path"`},
		"hook's path":        {"after-release = [{url = \"socket:run/x\"}]", `f:4: service[0].after-release[0].url: "socket:run/x": no absolute path`, `"socket:/path"`},
		"hook of both":       {"after-release = [{url = \"socket:/x\", user = \"a\"}]", `f:4: service[0].after-release[0]: both a program or its user, and a URL`, "keep one"},
		"machine's hook":     {"[[hooks.after-restore]]\nurl = \"unix:x\"", `f:5: hooks.after-restore[0].url: "unix:x": not unix:/SOCKET:/PATH`, `"unix:/socket:/path"`},
		"limit":              {"rlimits = [\n\"nofile=1024\",\n\"files=1\"]", `f:6: service[0].rlimits[1]: "files" is not a limit`, `"nofile"`},
		"limit's value":      {"rlimits = [\"nofile=-1\"]", `f:4: service[0].rlimits[0]: "nofile=-1" is not a limit such as`, "docs/configuration.md"},
		"capability":         {"capabilities = [\"cap_net_raw\", \"NET_BIND_SERVICE\",\n\"cap_fly\"]", `f:5: service[0].capabilities[2]: "cap_fly" is not a capability`, `"net_bind_service"`},
		"socket":             {"socket = [{listen = \"tcp:443\"}]", `f:4: service[0].socket[0].listen: "tcp:443": not an ip:port`, `"tcp:0.0.0.0:443"`},
		"socket's name":      {"[[service.socket]]\nname = \"a:b\"\nlisten = \"unix:/x\"", `f:5: service[0].socket[0].name: "a:b": only printable ASCII`, "plain word"},
		"socket of nothing":  {"[[service.socket]]\nname = \"a\"", `f:4: service[0].socket[0].listen: "": not tcp:ADDRESS:PORT`, `"unix:/run/web.sock"`},
		"oneshot's ready":    {"oneshot = true\nready = \"notify\"", `f:5: service[0].ready: a oneshot is ready when it has ended`, "take it"},
		"oneshot's health":   {"oneshot = true\n[service.health]\ncheck = \"port\"\nport = 80", `f:6: service[0].health.check: a oneshot is meant to end`, "oneshot away"},
		"oneshot for ever":   {"oneshot = true\nrestart = \"always\"", `f:5: service[0].restart: a oneshot is meant to end`, `"on-failure"`},
		"each other":         {"after = [\"b\"]\n[[service]]\nname = \"b\"\nexec = [\"/b\"]\nafter = [\"a\"]", `f:4: service[0].after: services wait for each other: a after b after a`, "take one of them away"},
		"zero in env":        {"env = [\"A=\\u0000\"]", `f:4: service[0].env: "A=\x00" is not an assignment`, `"NAME=value"`},
		"name's first":       {"[[service]]\nname = \"-b\"\nexec = [\"/b\"]", `f:5: service[1].name: "-b" is not a service name`, "after the first"},
		"name's length":      {"[[service]]\nname = \"" + strings.Repeat("x", 65) + "\"\nexec = [\"/b\"]", "f:5: service[1].name: ", "up to 64"},
		"capability of none": {"capabilities = [\"\"]", `f:4: service[0].capabilities[0]: "" is not a capability`, "capabilities(7)"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("f", []byte("[[service]]\nname = \"a\"\nexec = [\"/a\"]\n"+tt.text), nil)
			if err == nil {
				t.Fatal("accepted")
			}
			text := err.Error() // one finding: each would be a line
			if strings.Contains(text, "\n") || !strings.HasPrefix(text, tt.want) || !strings.Contains(strings.TrimPrefix(text, tt.want), tt.cure) {
				t.Errorf("error = %v\nwant   %s, once, and the cure %s", err, tt.want, tt.cure)
			}
		})
	}
}

// All that package service takes may be written.
func TestDefinitionsAccepted(t *testing.T) {
	text := `[[service]]
name = "a.b_c-1"
exec = ["/a"]
ready = "http"
ready-url = "unix:/run/x.sock"
health = {check = "http", url = "http://[::1]:8080/x?y=%20"}
rlimits = ["nofile=1024:4096", "core=unlimited", "rttime=1"]
capabilities = ["net_bind_service", "CAP_SYS_PTRACE"]
socket = [{listen = "tcp:0.0.0.0:443"}, {name = "dns", listen = "udp:[::]:53"}, {listen = "unix:/run/x"}]
before-snapshot = [{url = "http://127.0.0.9:80/"}, {url = "http://localhost"}, {url = "unix:/s:/p"}, {url = "socket:/s"}, {url = "notify:/s"}]
[[service]]
name = "once"
exec = ["/b"]
oneshot = true
capabilities = []
after = ["a.b_c-1"]
`
	if _, err := Parse("f", []byte(text), nil); err != nil {
		t.Error(err)
	}
}

// What stands in a [[mount]] and what is meant.
func TestMounts(t *testing.T) {
	tests := map[string]struct{ text, source, kind, err string }{
		"device":      {"source = \"/dev/vdb\"", "/dev/vdb", "auto", ""},
		"label":       {"source = \"LABEL=data\"\noptions = \"nofail\"", "LABEL=data", "auto", ""},
		"type":        {"source = \"/dev/vdb\"\ntype = \"ext4\"", "/dev/vdb", "ext4", ""},
		"no source":   {"type = \"tmpfs\"", "tmpfs", "tmpfs", ""},
		"tag":         {"source = \"share\"\ntype = \"virtiofs\"", "share", "virtiofs", ""},
		"bind":        {"source = \"/srv\"\noptions = \"ro,bind\"", "/srv", "", ""},
		"bind device": {"source = \"/dev/shm\"\noptions = \"rbind\"", "/dev/shm", "", ""},
		"bind odd":    {"source = \"/a=b\"\noptions = \"bind\"", "/a=b", "", ""},
		"bare tag":    {"source = \"share\"", "", "", "f:1: mount[0].type: it can be found out of devices alone; write \"9p\""},
		"nothing":     {"", "", "", "f:1: mount[0]: nothing to mount; write source"},
		"the root":    {"type = \"tmpfs\"\ntarget = \"/\"", "", "", "f:3: mount[0].target: the root is mounted already; write another folder"},
		"relative":    {"type = \"tmpfs\"\ntarget = \"x\"", "", "", "f:3: mount[0].target: \"x\" is not an absolute path"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			text := "[[mount]]\n" + tt.text
			if !strings.Contains(text, "target") {
				text += "\ntarget = \"/data\""
			}
			c, err := Parse("f", []byte(text), nil)
			if tt.err != "" {
				if err == nil || !strings.HasPrefix(err.Error(), tt.err) {
					t.Errorf("error = %v, want %s", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if m := c.Mounts[0]; m.Source != tt.source || m.Type != tt.kind {
				t.Errorf("%+v, want source %q and type %q", m, tt.source, tt.kind)
			}
		})
	}
}
