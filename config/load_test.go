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
