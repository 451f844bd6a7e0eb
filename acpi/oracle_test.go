package acpi

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
)

var update = flag.Bool("update", false, "compile testdata again and write what acpiexec says to testdata/expected.txt")

// expectedFile has a line for each object that a sample names: the sample, the path and the value that
// ACPICA's acpiexec gives for it. Samples' AML is compiled by testdata/generate.sh.
const expectedFile = "testdata/expected.txt"

func expected(t testing.TB) map[string]string {
	t.Helper()
	text, err := os.ReadFile(expectedFile)
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]string{}
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		path, v, _ := strings.Cut(rest, " ")
		values[name+" "+path] = v
	}
	return values
}

// TestEvaluate compares our values with those of acpiexec, as recorded.
func TestEvaluate(t *testing.T) {
	want := expected(t)
	for _, s := range samples(t) {
		t.Run(s.name, func(t *testing.T) {
			m := newMachine(s.tables(t), s.read)
			for _, d := range m.devices { // acpiexec runs all _INI at its start
				m.initialize(d, d)
			}
			for _, path := range s.evaluate {
				m.budget.steps, m.budget.heap = evalSteps, heapBytes
				if got := evaluateText(m, path); got != want[s.name+" "+path] {
					t.Errorf("%s is %s, acpiexec says %s", path, got, want[s.name+" "+path])
				}
			}
		})
	}
}

// evaluateText evaluates the object at a path and renders it.
func evaluateText(m *machine, path string) string {
	p, err := parsePath(path)
	if err != nil {
		return err.Error()
	}
	n, err := m.lookup(m.root, p)
	if err != nil || n == nil {
		return "error"
	}
	v, err := m.evaluate(n)
	if err != nil {
		return "error"
	}
	if n.value == v && kindOf(v) == kindDevice {
		return "error"
	}
	return render(m, v)
}

func render(m *machine, v value) string {
	switch v := v.(type) {
	case nil:
		return "nothing"
	case uint64:
		return fmt.Sprintf("%#x", v)
	case *blob:
		if v.text {
			return strconv.Quote(string(v.data))
		}
		return fmt.Sprintf("[% x]", v.data)
	case *list:
		var parts []string
		for i := range v.elements {
			e, _ := m.element(v, i)
			parts = append(parts, render(m, e))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	}
	return "object"
}

// tool returns the path of a program, or skips where it may be missing.
func tool(t *testing.T, name, debian string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is missing: apt-get install %s", name, debian)
	}
	t.Skipf("%s is missing: apt-get install %s", name, debian)
	return ""
}

// TestGenerated compiles all samples again and compares.
func TestGenerated(t *testing.T) {
	tool(t, "iasl", "acpica-tools")
	tool(t, "dtc", "device-tree-compiler")
	out := t.TempDir()
	if *update {
		out = "testdata"
	}
	if msg, err := exec.Command("testdata/generate.sh", out).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, msg)
	}
	for _, pattern := range []string{"testdata/*.aml", "testdata/*.dtb"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if !bytes.Equal(neutral(t, file), neutral(t, filepath.Join(out, filepath.Base(file)))) {
				t.Errorf("%s is not what its source compiles to; run go test -run 'TestGenerated|TestOracle' -update", file)
			}
		}
	}
}

// neutral returns a compiled file without the compiler's version and what the checksum makes of it.
func neutral(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if isAML(data) {
		clear(data[32:36])
		data[9] = 0
	}
	return data
}

// TestOracle asks acpiexec anew and compares with the record.
func TestOracle(t *testing.T) {
	acpiexec := tool(t, "acpiexec", "acpica-tools")
	all := samples(t)
	answers := make([]map[string]string, len(all))
	var wg sync.WaitGroup
	running := make(chan struct{}, 16) // acpiexec spends a second asleep
	for i := range all {
		running <- struct{}{}
		wg.Go(func() {
			defer func() { <-running }()
			var err error
			if answers[i], err = askACPICA(acpiexec, &all[i]); err != nil {
				t.Errorf("%s: %v", all[i].name, err)
			}
		})
	}
	wg.Wait()
	var record strings.Builder
	for i, s := range all {
		for _, path := range s.evaluate {
			fmt.Fprintf(&record, "%s %s %s\n", s.name, path, answers[i][path])
		}
	}
	if *update {
		if err := os.WriteFile(expectedFile, []byte(record.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(expectedFile)
	if err != nil {
		t.Fatal(err)
	}
	old, now := strings.Split(string(got), "\n"), strings.Split(record.String(), "\n")
	for i := range min(len(old), len(now)) {
		if old[i] != now[i] {
			t.Fatalf("recorded: %s\nacpiexec: %s", old[i], now[i])
		}
	}
	if len(old) != len(now) {
		t.Errorf("%d values recorded, %d asked for", len(old), len(now))
	}
}

// askACPICA lets acpiexec evaluate all paths of a sample, one after the other in one namespace.
func askACPICA(acpiexec string, s *sample) (map[string]string, error) {
	var files []string
	for _, name := range append(s.with, s.name) {
		files = append(files, filepath.Join("testdata", name+".aml"))
	}
	return askFiles(acpiexec, s, files)
}

// askFiles is askACPICA for tables in any files.
func askFiles(acpiexec string, s *sample, files []string) (map[string]string, error) {
	var commands []string
	for _, path := range s.evaluate {
		commands = append(commands, "evaluate "+path)
	}
	args := []string{"-dr", "-to", "1", "-fv", fmt.Sprint(s.fill), "-b", strings.Join(commands, ";")}
	out, err := exec.Command(acpiexec, append(args, files...)...).Output()
	if err != nil {
		return nil, fmt.Errorf("acpiexec: %w", err)
	}
	a := answer{lines: strings.Split(string(out), "\n")}
	return a.values(), a.err
}

var (
	evaluating = regexp.MustCompile(`^Evaluating (\S+)$`)
	outcome    = regexp.MustCompile(`^(No object was returned|Evaluation of \S+ (returned|failed))`)

	acpicaObject = regexp.MustCompile(`^ *\[(\w+)(?: Object)?(?: Reference)?\] *(.*)$`)
	acpicaBytes  = regexp.MustCompile(`[0-9A-F]{4}: ((?:[0-9A-F]{2} )+)`)
	acpicaText   = regexp.MustCompile(`Length [0-9A-F]+ = "(.*)"`)
	acpicaCount  = regexp.MustCompile(`Contains (\d+) Elements`)
)

// tooLong stands for a value that acpiexec evaluates but has no room to print.
const tooLong = "too long for acpiexec"

// answer is what acpiexec prints.
type answer struct {
	lines []string
	err   error
}

// next returns the next line, "" at the end.
func (a *answer) next() string {
	if len(a.lines) == 0 {
		return ""
	}
	line := a.lines[0]
	a.lines = a.lines[1:]
	return line
}

func (a *answer) values() map[string]string {
	values := map[string]string{}
	path := ""
	for len(a.lines) > 0 {
		line := a.next()
		if w := evaluating.FindStringSubmatch(line); w != nil {
			path = w[1]
		}
		switch w := outcome.FindStringSubmatch(line); {
		case w == nil || path == "":
		case strings.HasSuffix(line, "AE_BUFFER_OVERFLOW"):
			values[path] = tooLong
		case w[2] == "failed":
			values[path] = "error"
		case w[2] == "returned":
			values[path] = a.object()
		default:
			values[path] = "nothing"
		}
	}
	return values
}

// object reads one object as acpiexec prints it.
func (a *answer) object() string {
	line := a.next()
	w := acpicaObject.FindStringSubmatch(line)
	if w == nil {
		a.err = fmt.Errorf("acpiexec printed %q", line)
		return ""
	}
	switch w[1] {
	case "Integer":
		v, err := strconv.ParseUint(strings.TrimPrefix(w[2], "= "), 16, 64)
		if err != nil {
			a.err = err
		}
		return fmt.Sprintf("%#x", v)
	case "String":
		return strconv.Quote(unescape(acpicaText.FindStringSubmatch(w[2])[1]))
	case "Null":
		return "nothing"
	case "Buffer":
		return a.bytes(line)
	case "Package":
		n, _ := strconv.Atoi(acpicaCount.FindStringSubmatch(w[2])[1])
		parts := make([]string, n)
		for i := range parts {
			parts[i] = a.object()
		}
		return "{" + strings.Join(parts, ", ") + "}"
	}
	return "object"
}

var acpicaEscape = regexp.MustCompile(`\\(x(?:FFFFFF)?[0-9A-F]{2}|.)`)

// unescape gives back the characters that acpiexec prints as escapes; those from 0x80 on it prints as
// negative numbers.
func unescape(s string) string {
	return acpicaEscape.ReplaceAllStringFunc(s, func(e string) string {
		if len(e) > 2 {
			v, _ := strconv.ParseUint(e[len(e)-2:], 16, 8)
			return string([]byte{byte(v)})
		}
		if i := strings.IndexByte("abtnvfr", e[1]); i >= 0 {
			return string(rune(7 + i))
		}
		return e[1:]
	})
}

// bytes reads a buffer: a short one stands on the line of its head, a long one on lines below it.
func (a *answer) bytes(line string) string {
	var all []string
	for {
		if w := acpicaBytes.FindStringSubmatch(line); w != nil {
			all = append(all, strings.ToLower(strings.TrimSpace(w[1])))
		}
		if len(a.lines) == 0 || !acpicaBytes.MatchString(a.lines[0]) || strings.Contains(a.lines[0], "[") {
			return "[" + strings.Join(all, " ") + "]"
		}
		line = a.next()
	}
}
