//go:build root

package service

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func init() {
	helpers["confined"] = func([]string) {
		for _, name := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Uid", "Gid", "Groups"} {
			data, _ := os.ReadFile("/proc/self/status")
			for _, line := range strings.Split(string(data), "\n") {
				if v, ok := strings.CutPrefix(line, name+":"); ok {
					fmt.Println(name, strings.Join(strings.Fields(v), " "))
				}
			}
		}
		nice, _ := unix.Getpriority(unix.PRIO_PROCESS, 0)
		oom, _ := os.ReadFile("/proc/self/oom_score_adj")
		var nofile unix.Rlimit
		_ = unix.Getrlimit(unix.RLIMIT_CORE, &nofile)
		fmt.Println("nice", 20-nice, "oom", strings.TrimSpace(string(oom)), "core", nofile.Cur, nofile.Max)
		dir, _ := os.Getwd()
		_, leaked := os.LookupEnv(shimEnv)
		fmt.Println("dir", dir, "leaked", leaked)
		fmt.Println("ptrace", unix.PtraceSeize(1), "mount", unix.Mount("x", "/mnt", "tmpfs", 0, ""))
	}
	helpers["hog"] = func([]string) {
		var all [][]byte
		for {
			b := make([]byte, 1<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			all = append(all, b)
			_ = all
		}
	}
	helpers["private"] = func(args []string) {
		entries, err := os.ReadDir("/tmp")
		fmt.Println(len(entries), err, os.WriteFile("/tmp/x", nil, 0o600))
		fmt.Println(os.WriteFile(filepath.Join(args[0], "x"), nil, 0o600))
	}
	helpers["activated"] = func([]string) {
		if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
			fmt.Println("LISTEN_PID", os.Getenv("LISTEN_PID"), "is not", os.Getpid())
		}
		fmt.Println(os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_FDNAMES"))
		l, err := net.FileListener(os.NewFile(3, "listener"))
		if err != nil {
			panic(err)
		}
		sayNotify("READY=1")
		conn, err := l.Accept()
		if err != nil {
			panic(err)
		}
		fmt.Fprint(conn, "hello")
		conn.Close()
		os.Exit(1) // restarted: the socket must live on
	}
	helpers["store"] = func([]string) {
		fmt.Println(os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_FDNAMES"))
		if os.Getenv("LISTEN_FDS") != "" {
			data := make([]byte, 16)
			n, _ := unix.Pread(3, data, 0)
			fmt.Println(string(data[:n]))
			sayNotify("READY=1")
			select {}
		}
		fd, _ := unix.MemfdCreate("kept", 0)
		_, _ = unix.Write(fd, []byte("precious"))
		sock, _ := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
		to := &unix.SockaddrUnix{Name: os.Getenv("NOTIFY_SOCKET")}
		if err := unix.Sendmsg(sock, []byte("FDSTORE=1\nFDNAME=state"), unix.UnixRights(fd), to, 0); err != nil {
			panic(err)
		}
		// Wait until it was taken, as sd_notify_barrier(3) does.
		var p [2]int
		_ = unix.Pipe(p[:])
		_ = unix.Sendmsg(sock, []byte("BARRIER=1"), unix.UnixRights(p[1]), to, 0)
		unix.Close(p[1])
		_, _ = unix.Read(p[0], make([]byte, 1))
		os.Exit(1)
	}
}

func TestConfine(t *testing.T) {
	s := withExe(t, helperSpec("c", "confined"))
	s.Oneshot, s.User, s.Dir = true, "12345:12346", "/usr"
	s.Confine = Confine{
		Rlimits: []Rlimit{{"core", 4096, 8192}}, Nice: 5, OOMScoreAdj: 300,
		Capabilities: []string{"net_bind_service"}, Seccomp: "basic",
	}
	l := newLab(t, s)
	if err := l.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	want := `CapInh 0000000000000400
CapPrm 0000000000000400
CapEff 0000000000000400
CapBnd 0000000000000400
CapAmb 0000000000000400
NoNewPrivs 1
Seccomp 2
Uid 12345 12345 12345 12345
Gid 12346 12346 12346 12346
Groups
nice 5 oom 300 core 4096 8192
dir /usr leaked false
ptrace operation not permitted mount operation not permitted`
	got := l.printed(t, "c", strings.Count(want, "\n")+1)
	for i := range got {
		got[i] = strings.TrimSpace(got[i])
	}
	if text := strings.Join(got, "\n"); text != want {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
}

func TestPrivateTmpAndReadOnly(t *testing.T) {
	s := withExe(t, helperSpec("p", "private", "/usr/share"))
	exe, err := os.ReadFile(s.Exec[0])
	if err != nil {
		t.Fatal(err)
	}
	// The program must not lie in the /tmp that is hidden.
	s.Exec[0] = filepath.Join("/var/lib", filepath.Base(filepath.Dir(s.Exec[0])))
	if err := os.WriteFile(s.Exec[0], exe, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(s.Exec[0])
	s.Oneshot = true
	s.Confine = Confine{PrivateTmp: true, ReadOnly: []string{"/usr/share"}}
	l := newLab(t, s)
	if err := l.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	lines := l.printed(t, "p", 2)
	if len(lines) != 2 || lines[0] != "0 <nil> <nil>" || !strings.Contains(lines[1], "read-only file system") {
		t.Errorf("%q", lines)
	}
	if _, err := os.Stat("/tmp/x"); err == nil {
		t.Error("the service wrote to our /tmp")
	}
}

func TestConfineErrorsAreNamed(t *testing.T) {
	s := shell("x", "true")
	s.Confine.Nice = 3
	s.Exec[0] = "/nonexistent/program"
	d := shell("d", "true")
	d.Confine.Nice, d.Confine.ReadOnly = 3, []string{"/nonexistent"}
	l := newLab(t, s, d)
	err := l.Start(testContext(t))
	for _, want := range []string{"service x: start: exec: no such file", "service d: start: read-only /nonexistent: no such file"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q: %v", want, err)
		}
	}
}

func TestSocketActivation(t *testing.T) {
	dir := publicDir(t)
	s := helperSpec("a", "activated")
	s.Sockets = []Socket{{Name: "main", Listen: "unix:" + filepath.Join(dir, "s")}, {Listen: "tcp:[::1]:0"}, {Listen: "udp:127.0.0.1:0"}}
	s.Ready.Kind, s.Restart, s.RestartDelay = "notify", "always", 1
	l := newLab(t, s)
	if err := l.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		conn, err := net.Dial("unix", filepath.Join(dir, "s"))
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 16)
		n, err := conn.Read(buf)
		conn.Close()
		if err != nil || string(buf[:n]) != "hello" {
			t.Fatalf("%q, %v", buf[:n], err)
		}
	}
	if first := l.printed(t, "a", 1)[0]; first != "3 main:unknown:unknown" {
		t.Errorf("%q", first)
	}
}

func TestFDStore(t *testing.T) {
	s := helperSpec("s", "store")
	s.FDStore, s.Ready.Kind, s.Restart, s.RestartDelay = 1, "notify", "always", 1
	l := newLab(t, s)
	if err := l.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "stored content", func() bool { return len(l.Log("s", 0)) >= 3 })
	if lines := l.Log("s", 0); string(lines[1]) != "1 state" || string(lines[2]) != "precious" {
		t.Errorf("%s", lines)
	}
}

func TestLimits(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(cgroup2Mount(), "cgroup.controllers"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []string{"memory", "cpu", "pids"} {
		if !contains(strings.Fields(string(data)), c) {
			t.Skipf("the %s controller is not in this machine's cgroup v2 hierarchy; run in a guest", c)
		}
	}
	// A guest's root cgroup has all; ours is below it.
	if err := os.WriteFile(filepath.Join(cgroup2Mount(), "cgroup.subtree_control"), []byte("+memory +cpu +pids"), 0); err != nil {
		t.Fatal(err)
	}
	hog := helperSpec("hog", "hog")
	hog.Limits = Limits{MemoryMax: 32 << 20, CPUs: 0.5}
	forks := shell("forks", "for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; wait")
	forks.Limits.PIDs = 5
	calm := shell("calm", "cat /sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup)/cpu.max; exec sleep 1000")
	calm.Limits = Limits{CPUs: 0.5, MemoryMax: 1 << 30}
	l := newLab(t, hog, forks, calm)
	if err := l.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "end of the hog", func() bool { return l.state("hog").State == Failed })
	if st := l.state("hog"); st.ExitCode != 137 || st.OOMKills < 1 {
		t.Errorf("hog: %+v", st)
	}
	eventually(t, "a fork that fails", func() bool { return len(l.Log("forks", 0)) > 0 })
	n := 0
	eachID(l.byName["forks"].cg.path, "cgroup.procs", func(int) { n++ })
	if n > 5 {
		t.Errorf("%d processes where 5 are allowed", n)
	}
	eventually(t, "cpu.max", func() bool { return len(l.Log("calm", 0)) > 0 })
	if got := string(l.Log("calm", 1)[0]); got != "50000 100000" {
		t.Errorf("cpu.max %q", got)
	}
}

func TestLimitsWithoutControllersRefused(t *testing.T) {
	s := shell("a", "true")
	s.Limits.MemoryMax = 1 << 20
	root := cgroup2(t)
	if data, err := os.ReadFile(filepath.Join(root, "cgroup.controllers")); err != nil || strings.Contains(string(data), "memory") {
		t.Skipf("this machine has the memory controller in cgroup v2 (%v); the refusal cannot be tried", err)
	}
	m, err := New(Options{CgroupRoot: root, Reaper: testReaper, RunDir: t.TempDir()}, []Spec{s})
	if err != nil {
		t.Fatal(err)
	}
	err = m.Start(testContext(t))
	if err == nil || !strings.Contains(err.Error(), "the memory controller is not there (kernel option CONFIG_MEMCG") {
		t.Errorf("%v", err)
	}
	if err := errors.Join(m.Close()); err != nil {
		t.Error(err)
	}
}
