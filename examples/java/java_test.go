// Package java holds an example in Java; this is its test.
package java

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"testing"
)

// start runs the example and returns its port and what it prints from then on.
func start(t *testing.T, env ...string) (port int, lines *bufio.Scanner) {
	t.Helper()
	java, err := exec.LookPath("java")
	if err != nil {
		t.Skip("no Java: java (Debian: default-jdk-headless)")
	}
	cmd := exec.Command(java, "Snapshots.java", "0")
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	lines = bufio.NewScanner(out)
	if !lines.Scan() {
		t.Fatal("it printed nothing; a JRE without the compiler cannot run a source file")
	}
	if n, err := fmt.Sscanf(lines.Text(), "listening on %d,", &port); n != 1 {
		t.Fatalf("%q: %v", lines.Text(), err)
	}
	return port, lines
}

// post is what a hook with a url sends.
func post(t *testing.T, port int, path string) (int, string) {
	t.Helper()
	answer, err := http.Post(fmt.Sprintf("http://127.0.0.1:%d%s", port, path), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

func TestRestore(t *testing.T) {
	port, lines := start(t)
	for round := 1; round <= 2; round++ {
		if status, _ := post(t, port, "/before-snapshot"); status != http.StatusNoContent {
			t.Errorf("before-snapshot: status %d", status)
		}
		if status, _ := post(t, port, "/after-restore"); status != http.StatusNoContent {
			t.Errorf("after-restore: status %d", status)
		}
		if want := fmt.Sprintf("restored %d", round); !lines.Scan() || lines.Text() != want {
			t.Errorf("printed %q, want %q", lines.Text(), want)
		}
	}
}

func TestNotNow(t *testing.T) {
	port, _ := start(t, "BUSY=1")
	status, reason := post(t, port, "/before-snapshot")
	if status != http.StatusServiceUnavailable || reason != "a report is being written" {
		t.Errorf("status %d, reason %q", status, reason)
	}
}
