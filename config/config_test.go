package config

import (
	"errors"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

const good = `hostname = "web"

[[interface]]
name = "eth0"
addresses = ["10.0.2.15/24"]
gateway4 = "10.0.2.2"

[quiesce]
timeout = "3s"

[[service]]
name = "web"
exec = ["/usr/bin/webserver", "-listen", ":443"]
ready = "notify"
after-restore = [{ exec = ["/usr/bin/hello"] }]
`

func TestParseGood(t *testing.T) {
	c, err := Parse("rouse.toml", []byte(good), nil)
	if err != nil {
		t.Fatal(err)
	}
	if time.Duration(c.Quiesce.Timeout) != 3*time.Second || c.Quiesce.Leftovers != "abort" {
		t.Errorf("quiesce = %+v, want the file's timeout over the default policy", c.Quiesce)
	}
	if s := c.Services[0]; s.Restart != "on-failure" || time.Duration(s.AfterRestore[0].Timeout) != 10*time.Second {
		t.Errorf("service = %+v, want defaults filled in", s)
	}
}

// Every refusal names file, line and key, and says what to write.
func TestParseRefuses(t *testing.T) {
	tests := map[string]struct {
		text string
		want []string
	}{
		"unknown key":       {"hostname = \"a\"\nhostnme = \"b\"\n", []string{"rouse.toml:2: hostnme: no such key", "did you mean hostname?"}},
		"unknown nested":    {"[quiesce]\n\ntimeot = \"1s\"\n", []string{"rouse.toml:3: quiesce.timeot: no such key", "timeout"}},
		"unknown in list":   {"[[service]]\nname = \"a\"\nexec = [\"/a\"]\n[[service]]\nname = \"b\"\nexec = [\"/b\"]\nuzer = \"x\"\n", []string{"rouse.toml:7: service[1].uzer", "did you mean user?"}},
		"single brackets":   {"\n[service]\nname = \"a\"\n", []string{"rouse.toml:2: service: ", "double brackets"}},
		"upper case":        {"HOSTNAME = \"a\"\n", []string{"rouse.toml:1: HOSTNAME: no such key", "did you mean hostname?"}},
		"all at once":       {"hostname = 1\n[quiesce]\ntimeot = \"1s\"\ntimeout = 5\n", []string{"rouse.toml:1: hostname", "rouse.toml:3: quiesce.timeot", "rouse.toml:4: quiesce.timeout: \"5\" is not a duration"}},
		"inline hook":       {"[[service]]\nname = \"a\"\nexec = [\"/a\"]\nafter-restore = [\n  { exec = [\"/b\"] },\n  { exec = [\"b\"] },\n]\n", []string{"rouse.toml:6: service[0].after-restore[1].exec", "absolute"}},
		"float":             {"[control]\nvsock = 1.5\n", []string{"rouse.toml:2: control.vsock: a float is of no use here"}},
		"syntax":            {"hostname = \"a\n", []string{"rouse.toml:1"}},
		"type":              {"hostname = 3\n", []string{"rouse.toml:1", "hostname"}},
		"bad address":       {"[[interface]]\naddresses = [\"10.0.2.300/24\"]\n", []string{"rouse.toml:2", "10.0.2.300"}},
		"bad duration":      {"[adjust]\ntimeout = \"soon\"\n", []string{"rouse.toml:2", "soon", "10s"}},
		"negative duration": {"[adjust]\ntimeout = \"-1s\"\n", []string{"rouse.toml:2", "duration"}},
		"choice":            {"[quiesce]\nleftovers = \"drop\"\n", []string{"rouse.toml:2: quiesce.leftovers", `"abort", "destroy", "keep"`}},
		"second service":    {"[[service]]\nname = \"a\"\nexec = [\"/a\"]\n[[service]]\nname = \"b\"\nexec = [\"b\"]\n", []string{"rouse.toml:6: service[1].exec", "absolute"}},
		"missing exec":      {"[[service]]\nname = \"a\"\n", []string{"rouse.toml:1: service[0].exec", "nothing to run"}},
		"twice":             {"[[service]]\nname = \"a\"\nexec=[\"/a\"]\n[[service]]\nname = \"a\"\nexec=[\"/a\"]\n", []string{"rouse.toml:5: service[1].name", "twice"}},
		"after nobody":      {"[[service]]\nname = \"a\"\nexec=[\"/a\"]\nafter=[\"z\"]\n", []string{"rouse.toml:4: service[0].after", `"z"`}},
		"port":              {"[[service]]\nname = \"a\"\nexec=[\"/a\"]\nready=\"port\"\n", []string{"service[0].ready-port"}},
		"gateway family":    {"[[interface]]\ngateway4 = \"fe80::1\"\n", []string{"rouse.toml:2: interface[0].gateway4", "not IPv4"}},
		"allow everything":  {"[[gate.allow]]\n", []string{"rouse.toml:1: gate.allow[0]", "empty rule"}},
		"hook":              {"[[service]]\nname = \"a\"\nexec=[\"/a\"]\n[[service.before-snapshot]]\nexec = [\"x\"]\n", []string{"rouse.toml:5: service[0].before-snapshot[0].exec"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("rouse.toml", []byte(tt.text), nil)
			if err == nil {
				t.Fatal("accepted")
			}
			var e *Error
			if !errors.As(err, &e) || e.Cure == "" {
				t.Errorf("%v: no *Error with a cure", err)
			}
			for _, w := range tt.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error %q lacks %q", err, w)
				}
			}
		})
	}
}

func TestOverrides(t *testing.T) {
	tests := map[string]struct {
		set  string
		got  func(Config) any
		want any
		err  string
	}{
		"string":    {"quiesce.leftovers=keep", func(c Config) any { return c.Quiesce.Leftovers }, "keep", ""},
		"duration":  {"quiesce.timeout=250ms", func(c Config) any { return time.Duration(c.Quiesce.Timeout) }, 250 * time.Millisecond, ""},
		"number":    {"control.vsock=1024", func(c Config) any { return c.Control.Vsock }, uint32(1024), ""},
		"bool":      {"quiesce.drop-caches=true", func(c Config) any { return c.Quiesce.DropCaches }, true, ""},
		"unknown":   {"quiesce.nothing=1", nil, nil, "rouse.quiesce.nothing: no such key"},
		"no value":  {"hostname", nil, nil, "no value"},
		"list":      {"service.name=x", nil, nil, "cannot be set"},
		"bad":       {"control.vsock=many", nil, nil, "control.vsock"},
		"injection": {"hostname=a\nadjust.late=release", nil, nil, "host name"},
		"two keys":  {"hostname='a'\n[adjust]\nlate='release'", nil, nil, "host name"},
		"quoted":    {"'service'=[]", nil, nil, "cannot be set"},
		"choice":    {"adjust.late=never", nil, nil, `kernel command line: rouse.adjust.late: "never" is not allowed`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c, err := Parse("rouse.toml", []byte(good), []string{tt.set})
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error = %v, want %q in it", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := tt.got(c); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestCheckFiles(t *testing.T) {
	d, err := Load([]Source{{Name: "rouse.toml", Text: []byte(good)}})
	if err != nil {
		t.Fatal(err)
	}
	errs := d.CheckFiles(func(path string) error {
		if path == "/usr/bin/hello" {
			return errors.New(path + " is not in the image")
		}
		return nil
	})
	if len(errs) != 1 || !strings.HasPrefix(errs[0].Error(), "rouse.toml:15: service[0].after-restore[0].exec: /usr/bin/hello is not in the image") {
		t.Errorf("errors = %v", errs)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(good), "quiesce.leftovers=keep")
	f.Add([]byte("[[a\n[b]]\n=\n"), "=")
	f.Fuzz(func(t *testing.T, text []byte, override string) {
		c, err := Parse("f", text, []string{override})
		if err == nil && len(check(&c)) > 0 {
			t.Errorf("accepted although check objects: %v", check(&c))
		}
	})
}

func TestIsMAC(t *testing.T) {
	tests := map[string]bool{
		"52:54:00:12:34:56": true, "52-54-00-Ab-cD-eF": true,
		"52:54:00:12:34-56": false, "52:54:00:12:34:5": false, "52:54:00:12:34:5g": false, "525400123456": false,
		"5254.0012.3456": false, "52:54:00:12:34:56:78:9a": false, "52 54 00 12 34 56": false, "525540051253456ff": false,
	}
	for text, want := range tests {
		if got := isMAC(text); got != want {
			t.Errorf("isMAC(%q) = %v", text, got)
		}
	}
}

// The manual names every key, and no other.
func TestManualIsComplete(t *testing.T) {
	text, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, k := range KnownKeys() {
		known[k] = true
		isTable := slices.ContainsFunc(KnownKeys(), func(other string) bool { return strings.HasPrefix(other, k+".") })
		if !isTable && !strings.Contains(string(text), "| `"+k+"` |") {
			t.Errorf("docs/configuration.md does not tell of %s", k)
		}
	}
	for _, line := range strings.Split(string(text), "\n") {
		if key, ok := strings.CutPrefix(line, "| `"); ok {
			if key, _, _ = strings.Cut(key, "`"); !known[key] {
				t.Errorf("docs/configuration.md tells of %s, which does not exist", key)
			}
		}
	}
}
