package definition

import (
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
)

func TestParseTarget(t *testing.T) {
	for in, want := range map[string]Target{
		"http://127.0.0.1:8080/ready?x=1": {"tcp", "127.0.0.1:8080", "127.0.0.1:8080", "/ready?x=1"},
		"http://[::1]/":                   {"tcp", "[::1]:80", "[::1]", "/"},
		"http://localhost:1":              {"tcp", "localhost:1", "localhost:1", "/"},
		"HTTP://LocalHost:?a=%2f":         {"tcp", "LocalHost:80", "LocalHost:", "/?a=%2f"},
		"http://[::ffff:10.0.0.1]:1/":     {"tcp", "[::ffff:10.0.0.1]:1", "[::ffff:10.0.0.1]:1", "/"},
		"unix:/run/x.sock:/freeze":        {"unix", "/run/x.sock", "localhost", "/freeze"},
		"unix:/run/x.sock":                {"unix", "/run/x.sock", "localhost", "/"},
	} {
		if got, why := ParseTarget(in); why != "" || got != want {
			t.Errorf("%s: %+v, %s", in, got, why)
		}
	}
	for _, bad := range []string{"", "https://x/", "http:///x", "unix:x", "http://u:p@h/", "unix:/s:/a b", "unix:/s:rel", "http://h/%0d\r\n",
		"http://h/", "http://::1/", "http://[127.0.0.1]/", "http://[::1/", "http://[fe80::1%25lo]/", "http://127.0.0.1:x/", "http://127.0.0.1:0/",
		"http://127.0.0.1:65536/", "http://127.0.0.1/%0", "http://127.0.0.1/%zz", "http://127.0.0.1/#f", "http://127.0.0.1/é", "http://127.0.0.1/ ", "unix:", "unix::/x",
		"unix:/" + strings.Repeat("x", 107) + ":/"} {
		if got, why := ParseTarget(bad); why == "" {
			t.Errorf("%q: %+v", bad, got)
		}
	}
}

func TestAddresses(t *testing.T) {
	for in, want := range map[string]string{"http://LocalHost/": "127.0.0.1 ::1", "http://[::1]:8/": "::1", "http://10.0.0.1/": "10.0.0.1"} {
		target, why := ParseTarget(in)
		var list []string
		for _, a := range target.Addresses() {
			list = append(list, a.String())
		}
		if got := strings.Join(list, " "); got != want || why != "" {
			t.Errorf("%s: %q, %s", in, got, why)
		}
	}
}

// What hooks reach; package service has more of them.
func TestCheckHook(t *testing.T) {
	longest := "/" + strings.Repeat("x", 106)
	for url, want := range map[string]string{
		"http://localhost:80/x": "", "unix:/x:/y": "", "socket:/x": "", "notify:" + longest: "",
		"socket:x": "no absolute path", "notify:" + longest + "x": "at most 107 bytes", "socket": "no absolute path", "unix:" + longest + "x": "at most 107 bytes",
		"http://192.0.2.1/": "not on this machine", "https://localhost/": "not http://", ":/x": "not http://", "": "not http://", "SOCKET:/x": "not http://",
	} {
		if why := CheckHook(url); (why == "") != (want == "") || !strings.Contains(why, want) {
			t.Errorf("%s: %q, want %q", url, why, want)
		}
	}
}

func TestParseListen(t *testing.T) {
	for text, want := range map[string]string{
		"tcp:0.0.0.0:443": "", "udp:[::]:53": "", "unix:/run/web.sock": "", "tcp:127.0.0.1:0": "",
		"80": "not tcp:ADDRESS:PORT", "": "not tcp:ADDRESS:PORT", "tcp:80": "not an ip:port", "tcp:localhost:80": "unable to parse IP", "tcp:1.2.3.4:65536": "invalid port",
		"unix:x": "at most 107 bytes", "unix:/" + strings.Repeat("x", 107): "at most 107 bytes", "TCP:0.0.0.0:1": "not tcp:ADDRESS:PORT",
	} {
		if _, _, _, why := ParseListen(text); (why == "") != (want == "") || !strings.Contains(why, want) {
			t.Errorf("%s: %q, want %q", text, why, want)
		}
	}
	if network, at, path, _ := ParseListen("udp:[::]:53"); network != "udp" || at != netip.MustParseAddrPort("[::]:53") {
		t.Errorf("%s, %v, %s", network, at, path)
	}
	if network, _, path, _ := ParseListen("unix:/a:b"); network != "unix" || path != "/a:b" {
		t.Errorf("%s, %s", network, path)
	}
}

func TestCheckSocketName(t *testing.T) {
	for name, want := range map[string]string{"": "", "web-1": "", strings.Repeat("x", 255): "",
		"a:b": "colon", "a b": "blank", "a\x7f": "printable", "é": "ASCII", strings.Repeat("x", 256): "255 bytes"} {
		if why := CheckSocketName(name); (why == "") != (want == "") || !strings.Contains(why, want) {
			t.Errorf("%q: %q, want %q", name, why, want)
		}
	}
}

// The numbers are the kernel's: CAP_NET_BIND_SERVICE, CAP_SYS_PTRACE, CAP_CHECKPOINT_RESTORE; RLIMIT_NOFILE, RLIMIT_RTTIME.
func TestNames(t *testing.T) {
	for name, want := range map[string]int{"net_bind_service": 10, "CAP_SYS_PTRACE": 19, "cap_checkpoint_restore": 40, "chown": 0, "": -1, "cap_": -1, "cap_cap_chown": -1, "root": -1} {
		if got := Capability(name); got != want {
			t.Errorf("capability %q is %d, want %d", name, got, want)
		}
	}
	for name, want := range map[string]int{"cpu": 0, "nofile": 7, "rttime": 15, "NOFILE": -1, "": -1, "RLIMIT_CPU": -1} {
		if got := Rlimit(name); got != want {
			t.Errorf("limit %q is %d, want %d", name, got, want)
		}
	}
}

// Goldens of the order itself are those of package service.
func TestOrderTellsWhere(t *testing.T) {
	after := [][]string{{"b"}, {"c"}, {"d"}, {"b"}, nil}
	plan, at, cycle := Order(len(after), func(i int) (string, []string) { return string(rune('a' + i)), after[i] })
	if plan != nil || at != 3 || cycle != "d after b after c after d" {
		t.Errorf("%v, %d, %q", plan, at, cycle)
	}
	if plan, at, cycle := Order(0, nil); plan != nil || at != -1 || cycle != "" {
		t.Errorf("of nothing: %v, %d, %q", plan, at, cycle)
	}
}

// FuzzOrder: a plan has every service once, after all that it waits for; without one, there is a cycle.
func FuzzOrder(f *testing.F) {
	f.Add([]byte{3, 0x01, 0x12, 0x20})
	f.Add([]byte{4, 0x01, 0x12, 0x23})
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) == 0 {
			return
		}
		n := int(text[0]%8) + 1
		after := make([][]string, n)
		waits := make([][]bool, n)
		for i := range waits {
			waits[i] = make([]bool, n)
		}
		for _, b := range text[1:] {
			i, j := int(b>>4)%n, int(b&15)%n
			after[i], waits[i][j] = append(after[i], string(rune('a'+j))), true
		}
		plan, at, cycle := Order(n, func(i int) (string, []string) { return string(rune('a' + i)), after[i] })
		if cycle == "" {
			for i := range n {
				for j := range n {
					if waits[i][j] && slices.Index(plan, j) >= slices.Index(plan, i) {
						t.Errorf("%v: %v", after, plan)
					}
				}
			}
			if len(plan) != n {
				t.Errorf("%v: %v", after, plan)
			}
			return
		}
		round := strings.Split(cycle, " after ")
		if len(round) < 2 || round[0] != round[len(round)-1] || round[0] != string(rune('a'+at)) {
			t.Fatalf("%v: %q at %d", after, cycle, at)
		}
		for k := range round[1:] {
			if !waits[round[k][0]-'a'][round[k+1][0]-'a'] {
				t.Errorf("%v: %q", after, cycle)
			}
		}
	})
}

func FuzzParseTarget(f *testing.F) {
	f.Add("http://127.0.0.1:8080/ready?x=1")
	f.Add("unix:/run/x.sock:/freeze")
	f.Add("http://[::1]?x=%20")
	f.Fuzz(func(t *testing.T, s string) {
		target, why := ParseTarget(s)
		if why != "" {
			return
		}
		if target.Path[0] != '/' || strings.ContainsAny(target.Path+target.Host, " \r\n\x00") {
			t.Errorf("%q: %+v", s, target)
		}
		if target.Network == "unix" {
			return
		}
		// The standard library reads the same out of it.
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "http" || u.User != nil || u.Fragment != "" || u.Host != target.Host || u.RequestURI() != target.Path {
			t.Fatalf("%q: %+v, by net/url %+v, %v", s, target, u, err)
		}
		host, port, err := net.SplitHostPort(target.Address)
		if err != nil || host != u.Hostname() || u.Port() != "" && port != u.Port() || len(target.Addresses()) == 0 {
			t.Errorf("%q: address %q", s, target.Address)
		}
	})
}

// FuzzCheckHook: whatever is well leads to this machine and nowhere else.
func FuzzCheckHook(f *testing.F) {
	f.Add("http://localhost/")
	f.Add("socket:/x")
	f.Add("http://[::ffff:127.0.0.1]:1/")
	f.Fuzz(func(t *testing.T, s string) {
		if CheckHook(s) != "" || strings.HasPrefix(s, "socket:/") || strings.HasPrefix(s, "notify:/") {
			return
		}
		target, why := ParseTarget(s)
		if why != "" {
			t.Fatalf("%q is a hook and no target: %s", s, why)
		}
		if target.Network == "tcp" && !target.Addresses()[0].Unmap().IsLoopback() {
			t.Errorf("%q leads to %s", s, target.Address)
		}
	})
}

func FuzzParseListen(f *testing.F) {
	f.Add("tcp:0.0.0.0:443")
	f.Add("unix:/run/web.sock")
	f.Fuzz(func(t *testing.T, s string) {
		network, at, path, why := ParseListen(s)
		if why == "" && (network == "unix") != (path[0] == '/') || why == "" && network != "unix" && !at.IsValid() {
			t.Errorf("%q: %s, %v, %q", s, network, at, path)
		}
	})
}
