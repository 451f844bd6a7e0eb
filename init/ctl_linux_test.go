package main

import (
	"bufio"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"rouse/config"
	"rouse/control"
	"rouse/internal/json"
	"rouse/quiesce"
)

// TestHelpOfEach: every command tells its options before it does anything: `poweroff --help` must not end the machine.
func TestHelpOfEach(t *testing.T) {
	t.Setenv("ROUSE_SOCKET", filepath.Join(t.TempDir(), "nobody"))
	for _, c := range commands() {
		for _, args := range [][]string{{c.name, "--help"}, {"help", c.name}} {
			var out strings.Builder
			if err := runCommand(args, &out); err != nil || !strings.HasPrefix(out.String(), "rousectl "+c.name) || !strings.Contains(out.String(), c.help) {
				t.Errorf("%s: %v\n%s", args, err, out.String())
			}
		}
		if json := strings.Contains(c.args, "--json"); json != strings.Contains(completions(c), "--json\n") {
			t.Errorf("%s: --json in its arguments: %v, among its options: %v", c.name, json, completions(c))
		}
	}
}

func TestTableOfRows(t *testing.T) {
	var out strings.Builder
	list := json.RawMessage(`[{"name":"web","pid":7,"reason":""},{"name":"a long name","pid":12345678,"more":{"x":[1]}}]`)
	if err := showRows(&out, false, list, "# name pid reason more"); err != nil {
		t.Fatal(err)
	}
	const want = "#  NAME         PID       REASON  MORE\n" +
		"1  web          7                 -\n" +
		"2  a long name  12345678  -       {\"x\":[1]}\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
	out.Reset()
	if err := showRows(&out, true, list, "name"); err != nil || !strings.Contains(out.String(), `"more": {`) {
		t.Errorf("JSON: %v %s", err, out.String())
	}
	if err := showRows(&out, false, json.RawMessage(`{}`), "name"); err == nil {
		t.Error("an object was taken for a list")
	}
}

// TestCompletionScripts runs the scripts in the shells that there are.
func TestCompletionScripts(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("ROUSE_SOCKET", filepath.Join(dir, "socket"))
	serveServices(t, filepath.Join(dir, "socket"))
	words := func(args ...string) string {
		var out strings.Builder
		if err := runCommand(append([]string{"completion", "words"}, args...), &out); err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(strings.TrimSpace(out.String()), "\n", " ")
	}
	// The shells call what stands for rousectl here.
	function := "rousectl() { case \"$3\" in"
	for _, c := range []string{"gate", "report", "completion", "logs", "stop", "signal"} {
		function += " " + c + ") echo '" + words(c) + "';;"
	}
	function += " *) echo '" + words() + "';; esac; }\n"
	for _, tt := range []struct{ line, want string }{
		{"sta", "status start"}, {"gate sh", "shut"}, {"gate --f", "--force"}, {"report --", "--list --json"}, {"completion f", "fish"}, {"logs -", "-n -f --json"},
		{"logs w", "web worker"}, {"stop web-", ""}, {"signal d", "db"}, {"no-such-command x", ""},
	} {
		line := "rousectl " + tt.line
		script := function + bashCompletion + "COMP_WORDS=(" + line + ")\nCOMP_CWORD=" + strconv.Itoa(len(strings.Fields(line))-1) +
			"\n_rousectl\necho \"${COMPREPLY[*]}\"\n"
		got, err := exec.Command("bash", "-c", script).CombinedOutput()
		if err != nil {
			t.Fatalf("bash: %v %s", err, got)
		}
		if strings.TrimSpace(string(got)) != tt.want {
			t.Errorf("%q: %q, want %q", tt.line, got, tt.want)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		var out strings.Builder
		if err := runCommand([]string{"completion", shell}, &out); err != nil || !strings.Contains(out.String(), "completion words") {
			t.Errorf("%s: %v\n%s", shell, err, out.String())
		}
		if _, err := exec.LookPath(shell); err != nil {
			t.Logf("the script of %s was not run: %v", shell, err)
			continue
		}
		cmd := exec.Command(shell, "-n")
		cmd.Stdin = strings.NewReader(out.String())
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v %s", shell, err, text)
		}
	}
	if err := runCommand([]string{"completion", "csh"}, new(strings.Builder)); err == nil {
		t.Error("csh was taken")
	}
}

// serveServices answers every question with a list of services.
func serveServices(t *testing.T, path string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = bufio.NewReader(c).ReadString('\n')
			_, _ = c.Write([]byte(`{"return":[{"name":"web"},{"name":"worker"},{"name":"db"}]}` + "\n"))
			c.Close()
		}
	}()
}

// TestModel reads this process as exec reads a service's.
func TestModel(t *testing.T) {
	m, err := readModel("/proc/self")
	if err != nil {
		t.Fatal(err)
	}
	groups, _ := os.Getgroups()
	dir, _ := os.Getwd()
	if int(m.uid) != os.Geteuid() || int(m.gid) != os.Getegid() || m.cwd != dir || len(m.env) == 0 || len(m.groups) != len(groups) {
		t.Errorf("%+v", m)
	}
	if _, err := look("sh", m.env); err != nil {
		t.Error(err)
	}
	if _, err := look("no-such-command", m.env); err == nil {
		t.Error("found what there is not")
	}
	if path, err := look("./here", nil); path != "./here" || err != nil {
		t.Errorf("%q, %v", path, err)
	}
}

// TestOwnLog: numbers go on behind lines that are kept no more, and a follower waits.
func TestOwnLog(t *testing.T) {
	g := &guest{log: newLogger(new(strings.Builder))}
	for i := range logLines + 10 {
		g.log.printf("line %d", i+1)
	}
	ctx, cancel := context.WithCancel(t.Context())
	lines, next, err := g.ownLog(ctx, 5, 3)
	if err != nil || next != 13 || len(lines) != 3 || lines[0].Seq != 11 || !strings.HasSuffix(lines[0].Text, "line 11") {
		t.Fatalf("%v, next %d, %v", lines, next, err)
	}
	lines, next, err = g.ownLog(ctx, logLines+8, 100)
	if err != nil || len(lines) != 2 || next != logLines+10 {
		t.Fatalf("%v, next %d, %v", lines, next, err)
	}
	answer := make(chan []control.LogLine)
	go func() {
		lines, _, _ := g.ownLog(ctx, next, 100)
		answer <- lines
	}()
	g.log.printf("new")
	if lines := <-answer; len(lines) != 1 || !strings.HasSuffix(lines[0].Text, "new") {
		t.Errorf("%v", lines)
	}
	cancel()
	if lines, _, err := g.ownLog(ctx, next+1, 100); err == nil || len(lines) != 0 {
		t.Errorf("%v %v", lines, err)
	}
}

func TestConfigView(t *testing.T) {
	d, err := config.Load([]config.Source{{Name: "a.toml", Text: []byte("hostname = \"x\"\n")}})
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	list, err := json.Marshal((&guest{doc: d}).configView())
	if err == nil {
		err = showRows(&out, false, list, "key value from")
	}
	if err != nil || !strings.Contains(out.String(), "a.toml:1") {
		t.Errorf("%v\n%s", err, out.String())
	}
}

// TestRefusal asks the running kernel what no kernel has, and what all have.
func TestRefusal(t *testing.T) {
	if err := refusal(0, 0x7f, make([]byte, 16)); err == nil { // NETLINK_ROUTE
		t.Error("rtnetlink took a message of a kind that there is not")
	}
	t.Logf("destroy %v, ctnetlink %v", destroys(), ctnetlink())
}

func TestBar(t *testing.T) {
	r := quiesce.Report{StartNS: 100, DurationNS: 3000}
	for _, tt := range []struct {
		start, duration int64
		want            string
	}{{100, 3000, strings.Repeat("=", 30)}, {100, 0, "="}, {3100, 0, strings.Repeat(" ", 29) + "="}, {1100, 1000, strings.Repeat(" ", 10) + strings.Repeat("=", 10)}} {
		if got := bar(quiesce.Phase{StartNS: tt.start, DurationNS: tt.duration}, r); got != tt.want {
			t.Errorf("%d+%d: %q, want %q", tt.start, tt.duration, got, tt.want)
		}
	}
}
