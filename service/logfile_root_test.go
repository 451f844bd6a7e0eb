//go:build root

package service

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// linesOf reads a log file and takes the times off.
func linesOf(t *testing.T, path string) (lines []string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	scan := bufio.NewScanner(bytes.NewReader(data))
	for scan.Scan() {
		stamp, line, ok := strings.Cut(scan.Text(), " ")
		if _, err := time.Parse(time.RFC3339Nano, stamp); ok && err == nil {
			lines = append(lines, line)
			continue
		}
		lines = append(lines, scan.Text())
	}
	return lines
}

func TestLogFileRotates(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.log")
	if err := os.WriteFile(path, []byte("2026-01-02T03:04:05.678Z from before\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	s := shell("s", "i=100; while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); done; exec sleep 1000")
	s.LogFile = LogFile{Path: path, Size: 1000, Keep: 2}
	l := newLab(t, s)
	if err := l.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "last line", func() bool {
		data, _ := os.ReadFile(path)
		return bytes.HasSuffix(data, []byte(" line 199\n"))
	})
	next := 199
	for _, name := range []string{path, path + ".1", path + ".2"} {
		lines := linesOf(t, name)
		for i := len(lines) - 1; i >= 0; i-- {
			if lines[i] != fmt.Sprint("line ", next) {
				t.Fatalf("%s: %q, want line %d", name, lines[i], next)
			}
			next--
		}
		if st, err := os.Stat(name); err != nil || st.Size() > 1000+40 || st.Mode().Perm() != 0o640 {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
	if _, err := os.Stat(path + ".3"); err == nil || next < 110 {
		t.Errorf("more is kept than was asked for; back to line %d", next+1)
	}
	if st := l.state("s"); st.Dropped != 0 {
		t.Errorf("%+v", st)
	}
}

// TestLogFileOnFullDisk lets the disk be full for a while: the service goes on, one line of ours tells of it, what is
// missing is counted in the file, and no line is cut.
func TestLogFileOnFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 1<<20-4096), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s.log")
	s := shell("s", "i=0; while :; do echo line $i; i=$((i+1)); sleep 0.001; done")
	s.LogFile = LogFile{Path: path, Size: 2 << 20} // without the ballast there is room for as long as the test takes
	l := newLab(t, s)
	ctx := testContext(t)
	if err := l.Start(ctx); err != nil {
		t.Fatal(err)
	}
	eventually(t, "full disk", func() bool { return l.state("s").Dropped > 20 })
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	eventually(t, "going on", func() bool {
		data, _ := os.ReadFile(path)
		return bytes.Contains(data, []byte("left out here]\n"))
	})
	if err := l.StopService(ctx, "s"); err != nil {
		t.Fatal(err)
	}
	for i, line := range linesOf(t, path) {
		if !strings.HasPrefix(line, "line ") && !strings.HasSuffix(line, "lines left out here]") {
			t.Errorf("line %d is cut: %q", i, line)
		}
	}
	if n := strings.Count(l.logged(), "no space left on device"); n != 1 {
		t.Errorf("told %d times:\n%s", n, l.logged())
	}
}

// TestLogFileThatCannotBe must neither be followed nor keep the service from running.
func TestLogFileThatCannotBe(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	if err := os.WriteFile(target, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	var specs []Spec
	for _, name := range []string{"link", "fifo", "no/such"} {
		s := shell("s"+filepath.Base(name), "echo a; echo b; exec sleep 1000")
		s.LogFile.Path = filepath.Join(dir, name)
		specs = append(specs, s)
	}
	l := newLab(t, specs...)
	if err := l.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	for _, s := range specs {
		eventually(t, s.Name, func() bool { return l.state(s.Name).Dropped == 2 })
	}
	if data, err := os.ReadFile(target); err != nil || len(data) > 0 {
		t.Errorf("the link was followed: %q, %v", data, err)
	}
}

// TestLongLines go through whole up to the longest that is kept as one, whatever the pieces they come in.
func TestLongLines(t *testing.T) {
	j, err := newJournal(DefaultLogBytes)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, n := range []int{1, 1023, 1024, 1025, 5000, maxLine - 1, maxLine + 1, 3} {
		line := strings.Repeat(string(rune('a'+len(want))), n)
		if _, err := j.w.WriteString(line[:n/2]); err != nil {
			t.Fatal(err)
		}
		if _, err := j.w.WriteString(line[n/2:] + "\n"); err != nil {
			t.Fatal(err)
		}
		for len(line) > maxLine {
			want = append(want, line[:maxLine])
			line = line[maxLine:]
		}
		want = append(want, line)
	}
	if _, err := j.w.WriteString("no end"); err != nil {
		t.Fatal(err)
	}
	want = append(want, "no end")
	j.w.Close()
	<-j.done
	got := j.ring.tail(0)
	j.close()
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || string(got[i]) != want[i] {
			t.Fatalf("%d lines, want %d; the first that differs is %d", len(got), len(want), i)
		}
	}
}
