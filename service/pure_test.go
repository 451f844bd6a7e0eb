package service

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/sys/unix"
)

func TestOrder(t *testing.T) {
	spec := func(name string, after ...string) Spec { return Spec{Name: name, After: after} }
	for _, c := range []struct {
		name, want, err string
		specs           []Spec
	}{
		{name: "configuration order", want: "b a", specs: []Spec{spec("b"), spec("a")}},
		{name: "dependency", want: "db cache web", specs: []Spec{spec("web", "db", "cache"), spec("cache", "db"), spec("db")}},
		{name: "long cycle", err: "services wait for each other: c after d after b after c", specs: []Spec{spec("a", "b"), spec("b", "c"), spec("c", "d"), spec("d", "b")}},
		{name: "kept order", want: "y z x", specs: []Spec{spec("x", "z"), spec("y"), spec("z")}},
		{name: "twice", err: "service a: defined twice", specs: []Spec{spec("a"), spec("a")}},
		{name: "unknown", err: `service a: after "x": no such service`, specs: []Spec{spec("a", "x")}},
		{name: "itself", err: "services wait for each other: a after a", specs: []Spec{spec("a", "a")}},
		{name: "cycle", err: "services wait for each other: c after b after c", specs: []Spec{spec("a", "b"), spec("b", "c"), spec("c", "b")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			plan, err := order(c.specs)
			if fmt.Sprint(err) != c.err && (c.err != "" || err != nil) {
				t.Fatalf("error %v, want %q", err, c.err)
			}
			var names []string
			for _, i := range plan {
				names = append(names, c.specs[i].Name)
			}
			if got := strings.Join(names, " "); got != c.want {
				t.Errorf("order %q, want %q", got, c.want)
			}
		})
	}
}

func TestSpecRefused(t *testing.T) {
	good := func() Spec { return Spec{Name: "a", Exec: []string{"/bin/true"}} }
	for _, c := range []struct {
		want  string
		spoil func(*Spec)
	}{
		{"service without a name", func(s *Spec) { s.Name = "" }},
		{"may hold letters", func(s *Spec) { s.Name = "../x" }},
		{"may hold letters", func(s *Spec) { s.Name = ".x" }},
		{"exec: no command", func(s *Spec) { s.Exec = nil }},
		{`restart "often": not one of never, on-failure, always`, func(s *Spec) { s.Restart = "often" }},
		{`settle "must": not one of`, func(s *Spec) { s.Settle = "must" }},
		{`ready "port": no port`, func(s *Spec) { s.Ready.Kind = "port" }},
		{"not KEY=value", func(s *Spec) { s.Env = []string{"A"} }},
		{"negative", func(s *Spec) { s.StopTimeout = -1 }},
		{"a oneshot is meant to end", func(s *Spec) { s.Oneshot, s.Restart = true, "always" }},
		{"hook: both", func(s *Spec) { s.AfterRestore = []Hook{{Exec: []string{"x"}, URL: "http://x/"}} }},
		{"hook: no command", func(s *Spec) { s.AfterRestore = []Hook{{}} }},
		{`rlimit "files": no such limit`, func(s *Spec) { s.Confine.Rlimits = []Rlimit{{"files", 1, 1}} }},
		{"soft limit above the hard one", func(s *Spec) { s.Confine.Rlimits = []Rlimit{{"nofile", 2, 1}} }},
		{`capability "cap_fly": no such`, func(s *Spec) { s.Confine.Capabilities = []string{"cap_fly"} }},
		{`on-exit "halt": not one of none, poweroff, reboot`, func(s *Spec) { s.OnExit = "halt" }},
		{"nice 20", func(s *Spec) { s.Confine.Nice = 20 }},
		{"oom_score_adj 1001", func(s *Spec) { s.Confine.OOMScoreAdj = 1001 }},
		{`seccomp "strict"`, func(s *Spec) { s.Confine.Seccomp = "strict" }},
		{"not absolute", func(s *Spec) { s.Confine.ReadOnly = []string{"etc"} }},
		{"limit cpus", func(s *Spec) { s.Limits.CPUs = 0.001 }},
		{"not tcp:ADDRESS:PORT", func(s *Spec) { s.Sockets = []Socket{{Listen: "80"}} }},
		{"at most 107 bytes", func(s *Spec) { s.Sockets = []Socket{{Listen: "unix:x"}} }},
		{"without blank and colon", func(s *Spec) { s.Sockets = []Socket{{Name: "a:b", Listen: "tcp:0.0.0.0:1"}} }},
		{`target "x"`, func(s *Spec) { s.Ready = Ready{Kind: "http", URL: "x"} }},
		{`ready "exec": no command`, func(s *Spec) { s.Ready.Kind = "exec" }},
		{`user "nobody-such": not in passwd`, func(s *Spec) { s.User = "nobody-such" }},
	} {
		s := good()
		c.spoil(&s)
		_, err := New(Options{Etc: testEtc}, []Spec{s})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want one with %q", err, c.want)
		}
	}
	if _, err := New(Options{Etc: testEtc}, []Spec{good()}); err != nil {
		t.Errorf("good spec refused: %v", err)
	}
}

var testEtc = fstest.MapFS{
	"passwd": {Data: []byte("root:x:0:0:root:/root:/bin/sh\n# c\n+nis\nweb:x:33:44:w:/srv:/bin/false\nbad:x:no:1::/:\nempty:x:34:44:::\n")},
	"group":  {Data: []byte("root:x:0:\nweb:x:44:\nlog:x:50:adm,web\nssl:x:51:web\nnone:x:52:\n")},
}

func TestLookupAccount(t *testing.T) {
	for _, c := range []struct {
		user, group string
		groups      []string
		want        account
		err         string
	}{
		{want: account{name: "root", home: "/root"}},
		{user: "web", want: account{name: "web", uid: 33, gid: 44, groups: []uint32{50, 51}, home: "/srv"}},
		{user: "33", want: account{name: "web", uid: 33, gid: 44, groups: []uint32{50, 51}, home: "/srv"}},
		{user: "web:log", want: account{name: "web", uid: 33, gid: 50, home: "/srv"}},
		{user: "web:log", group: "7", want: account{name: "web", uid: 33, gid: 7, home: "/srv"}},
		{user: "web:log", groups: []string{"ssl", "9"}, want: account{name: "web", uid: 33, gid: 50, groups: []uint32{51, 9}, home: "/srv"}},
		{user: "web", groups: []string{"none"}, want: account{name: "web", uid: 33, gid: 44, groups: []uint32{50, 51, 52}, home: "/srv"}},
		{user: "web", groups: []string{"nope"}, err: `group "nope": not in group`},
		{user: "1000", want: account{uid: 1000, home: "/"}},
		{user: "1000:1001", want: account{uid: 1000, gid: 1001, home: "/"}},
		{user: "empty", want: account{name: "empty", uid: 34, gid: 44, home: "/"}},
		{user: "bad", err: `user "bad": not in passwd`},
		{user: "4294967295", err: "not in passwd"},
		{user: "-1", err: "not in passwd"},
		{user: "web", group: "nope", err: `group "nope": not in group`},
	} {
		got, err := lookupAccount(testEtc, c.user, c.group, c.groups...)
		switch {
		case c.err != "":
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s/%s: error %v, want %q", c.user, c.group, err, c.err)
			}
		case err != nil || !reflect.DeepEqual(got, c.want):
			t.Errorf("%s/%s: %+v, %v, want %+v", c.user, c.group, got, err, c.want)
		}
	}
	if _, err := lookupAccount(fstest.MapFS{}, "web", ""); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no passwd: error %v", err)
	}
	if a, err := lookupAccount(fstest.MapFS{}, "5", ""); err != nil || a.uid != 5 {
		t.Errorf("number without passwd: %+v, %v", a, err)
	}
}

func TestRing(t *testing.T) {
	r := newRing(10000)
	for i := range 5000 {
		r.add(fmt.Appendf(nil, "line %d", i))
	}
	if len(r.buf) != 10000 {
		t.Fatalf("buffer of %d bytes, want 10000", len(r.buf))
	}
	lines := r.tail(0)
	if len(lines) < 900 {
		t.Errorf("only %d lines kept", len(lines))
	}
	for i, l := range lines {
		if want := fmt.Sprintf("line %d", 5000-len(lines)+i); string(l) != want {
			t.Fatalf("line %d is %q, want %q", i, l, want)
		}
	}
	if last := r.tail(1); len(last) != 1 || string(last[0]) != "line 4999" {
		t.Errorf("last line %q", last)
	}
	r.add(bytes.Repeat([]byte{'x'}, 50000))
	r.add([]byte("after"))
	if last := r.tail(1); string(last[0]) != "after" || len(r.buf) != 10000 {
		t.Errorf("after a long line: %q, buffer %d", last, len(r.buf))
	}
}

// TestRingFollowed reads on and on, as fast or as slowly as it may be: numbers never lie, and nobody waits.
func TestRingFollowed(t *testing.T) {
	r := newRing(1000)
	if lines, _, more := r.since(0); lines != nil || more == nil {
		t.Fatalf("empty ring: %q, more %v", lines, more)
	}
	_, _, more := r.since(7) // of another life
	for i := 1; i <= 500; i++ {
		r.add(fmt.Appendf(nil, "%d", i))
	}
	select {
	case <-more:
	default:
		t.Error("who waits was not told")
	}
	for _, after := range []uint64{0, 250, 400, 498, 499, 1000} {
		kept, count, _ := r.since(after)
		lines := numbered(kept, count, 3)
		if after < 500 && lines[0].Seq <= after || count != 500 || uint64(len(lines)) != min(3, 501-lines[0].Seq) {
			t.Errorf("after %d: %+v of %d", after, lines, count)
		}
		for _, l := range lines {
			if l.Text != fmt.Sprint(l.Seq) {
				t.Errorf("line %d is %q", l.Seq, l.Text)
			}
		}
	}
	if lines, _, more := r.since(500); lines != nil || more == nil {
		t.Errorf("at the end: %q, %v", lines, more)
	}
	r.add(bytes.Repeat([]byte{'x'}, 5000)) // fills the ring: no line is whole
	if lines, count, more := r.since(500); len(lines) > 1 || count != 501 || len(lines) == 0 && more == nil {
		t.Errorf("%d lines of %d, more %v", len(lines), count, more)
	}
	r.add([]byte("last"))
	if lines, _, _ := r.since(500); len(lines) != 1 || string(lines[0]) != "last" {
		t.Errorf("%q", lines)
	}
	r.close()
	if lines, _, more := r.since(502); lines != nil || more != nil {
		t.Errorf("closed: %q, %v", lines, more)
	}
}

func TestParseStat(t *testing.T) {
	s, err := parseStat([]byte("42 (a ) (b) S 7 42 42 0 -1 4194560 100 0"))
	if err != nil || s.comm != "a ) (b" || s.state != 'S' || s.ppid != 7 || s.flags != 4194560 {
		t.Errorf("%+v, %v", s, err)
	}
	for _, bad := range []string{"", "1 2 3", "1 (a", "1 (a) S", "1 (a) S x 1 1 1 1 1"} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func TestJudge(t *testing.T) {
	files := map[uint64]string{3: "socket:[1]", 4: "/dev/urandom"}
	for _, c := range []struct{ name, call, want string }{
		{name: "event loop", call: fmt.Sprintf("%d 0x5 0x1 0x1 0 0 0 0x7 0x8", unix.SYS_EPOLL_PWAIT)},
		{name: "sleeping reader", call: fmt.Sprintf("%d 0x3 0x1 0x1 0 0 0 0x7 0x8", unix.SYS_READ)},
		{name: "random reader", call: fmt.Sprintf("%d 0x4 0x1 0x1 0 0 0 0x7 0x8", unix.SYS_READ), want: "reading random bytes"},
		{name: "getrandom", call: fmt.Sprintf("%d 0x4 0x1 0x1 0 0 0 0x7 0x8", unix.SYS_GETRANDOM), want: "in a system call that is no rest"},
		{name: "running", call: "running", want: "running"},
		{name: "in its loop", call: "-1 0x7 0x8", want: "stopped in its own code"},
		{name: "vfork", call: fmt.Sprintf("%d 0x3 0x1 0x1 0 0 0 0x7 0x8", unix.SYS_CLONE)},
	} {
		t.Run(c.name, func(t *testing.T) {
			call, err := parseCall([]byte(c.call))
			if err != nil {
				t.Fatal(err)
			}
			if got := judge(call, func(fd uint64) string { return files[fd] }); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
	for _, s := range []taskStat{{state: 'Z'}, {state: 'R', flags: pfIOWorker}, {state: 'S', flags: pfKthread}} {
		if !s.inert() {
			t.Errorf("%+v counts as running code of the service", s)
		}
	}
}

func TestParseMessage(t *testing.T) {
	got := parseMessage([]byte("READY=1\nSTATUS=half \x1b[2Jway\nMAINPID=77\nEXTEND_TIMEOUT_USEC=1500000\nJUNK\nWATCHDOG=trigger\nMAINPID=1"))
	want := message{ready: true, status: "half ?[2Jway", hasStatus: true, mainPID: 77, extend: 1500 * time.Millisecond, trigger: true}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if d := micros("18446744073709551615"); d <= 0 {
		t.Errorf("large time overflows to %v", d)
	}
}

func TestListenInodes(t *testing.T) {
	table := `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0
   1: 0100007F:1F90 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100 0 0 10 0
   2: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 0 100 0 0 10 0
`
	if got := listenInodes([]byte(table), 8080); !reflect.DeepEqual(got, []uint64{4711}) {
		t.Errorf("%v", got)
	}
}

func TestPolicy(t *testing.T) {
	start := time.Unix(1000, 0)
	exit := func(code int) *ending { return &ending{known: true, status: unix.WaitStatus(code << 8)} }
	base := Spec{Restart: "on-failure", RestartDelay: time.Second, RestartMax: 5 * time.Second, StartLimit: 4, StartWindow: time.Minute}
	var p policy
	var delays []time.Duration
	for i := range 4 {
		at := start.Add(time.Duration(i) * time.Second)
		d, again, why := p.next(&base, exit(1), at, at.Add(time.Second))
		if again != (i < 3) || (why != "") != (i == 3) {
			t.Errorf("start %d: again %v, %q", i, again, why)
		}
		delays = append(delays, d)
	}
	if want := []time.Duration{1e9, 2e9, 4e9, 0}; !reflect.DeepEqual(delays, want) {
		t.Errorf("delays %v, want %v", delays, want)
	}
	for _, c := range []struct {
		restart string
		end     *ending
		again   bool
	}{
		{"never", exit(1), false}, {"on-failure", exit(0), false}, {"on-failure", exit(3), true},
		{"on-failure", &ending{known: true, status: 9}, true}, {"always", exit(0), true},
		{"always", exit(NoRestart), false}, {"always", &ending{err: unix.ENOENT, permanent: true}, false},
	} {
		s := base
		s.Restart = c.restart
		if _, again, _ := new(policy).next(&s, c.end, start, start); again != c.again {
			t.Errorf("%s after %v: again %v", c.restart, c.end, again)
		}
	}
}

func TestParseStatus(t *testing.T) {
	for in, want := range map[string]int{"HTTP/1.1 204 No Content\r\n": 204, "HTTP/1.0 503\r\n": 503, "HTTP/2 200\r\n": 0, "SSH-2.0\r\n": 0, "HTTP/1.1 20x OK": 0, "": 0} {
		if got, err := parseStatus(in); got != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d, %v", in, got, err)
		}
	}
}

func TestParseResponse(t *testing.T) {
	for in, want := range map[string]struct {
		code int
		body string
	}{
		"HTTP/1.1 503 Busy\r\nA: b\r\n\r\nlater\r\n\r\nx": {503, "later\r\n\r\nx"}, "HTTP/1.0 200 OK\n\nx": {200, "x"},
		"HTTP/1.1 204 No\r\n": {204, ""}, "HTTP/1.1 204 No\r\nA: b": {204, ""}, "HTTP/1.1 200\r\n\r\n": {200, ""},
	} {
		if code, body, err := parseResponse([]byte(in)); code != want.code || string(body) != want.body || err != nil {
			t.Errorf("%q: %d, %q, %v", in, code, body, err)
		}
	}
}

func TestLimitSettings(t *testing.T) {
	got := (&Limits{MemoryMax: 1 << 20, MemoryHigh: 1 << 19, CPUs: 0.25, PIDs: 7}).settings()
	want := []setting{
		{"memory", "memory.max", "1048576"}, {"memory", "memory.oom.group", "1"}, {"memory", "memory.high", "524288"},
		{"cpu", "cpu.max", "25000 100000"}, {"pids", "pids.max", "7"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	if n := counter([]byte("low 0\noom 3\noom_kill 2\noom_group_kill 1\n"), "oom_kill"); n != 2 {
		t.Errorf("oom_kill %d", n)
	}
}

func TestBasicFilterJumps(t *testing.T) {
	f := basicFilter(1, denied)
	last := len(f) - 1
	for i, ins := range f {
		if ins.Code&unix.BPF_JMP == 0 || ins.Jt == 0 || i == 1 {
			continue
		}
		if at := i + 1 + int(ins.Jt); at != last {
			t.Errorf("instruction %d jumps to %d, not to the denial at %d", i, at, last)
		}
	}
}

func TestServiceOfPath(t *testing.T) {
	for path, want := range map[string]string{
		"/x/services/web": "web", "/x/services/web/sub": "web", "/x/services": "", "/x/other": "", "/": "", "": "",
		"/x/services/..y": "..y", "/x/services/../y": "",
	} {
		if got := serviceOfPath("/x/services", path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}
