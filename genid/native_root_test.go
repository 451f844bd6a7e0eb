//go:build root

package genid

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"rouse/genid/sysgenid"
)

// role is what a child of the test does: "test" in a mount namespace of its own, "serve" beside it.
const role = "GENID_TEST_ROLE"

// TestNative uses rouse's own device in place of a kernel driver's, which has the same interface. It is
// served by another process: one that faults on a page that it has to serve itself would hang.
func TestNative(t *testing.T) {
	switch os.Getenv(role) {
	case "":
		cmd := exec.Command(os.Args[0], "-test.run=^TestNative$", "-test.v")
		cmd.Env = append(os.Environ(), role+"=test")
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		text, err := cmd.CombinedOutput()
		if t.Logf("%s", text); err != nil {
			t.Error(err)
		}
	case "serve":
		serve(t, os.Getenv("GENID_TEST_PATH"))
	case "test":
		testNative(t)
	}
}

func serve(t *testing.T, path string) {
	s, err := sysgenid.Serve(path, sysgenid.Options{})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("serving")
	_, _ = io.Copy(io.Discard, os.Stdin)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// served returns the path of a device that another process serves until the test ends.
func served(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sysgenid")
	cmd := exec.Command(os.Args[0], "-test.run=^TestNative$")
	cmd.Env = append(os.Environ(), role+"=serve", "GENID_TEST_PATH="+path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || strings.TrimSpace(line) != "serving" {
		t.Fatalf("%q, %v", line, err)
	}
	return path
}

func testNative(t *testing.T) {
	path := served(t)
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	bump := func() (uint32, error) {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), sysgenid.TriggerGenUpdate, 0); errno != 0 {
			return 0, errno
		}
		var gen [1]uint32
		c, err := sysgenid.Open(path)
		if err != nil {
			return 0, err
		}
		defer c.Close()
		gen[0] = c.Generation()
		return gen[0], nil
	}
	s := OpenSources(Options{Log: t.Logf})
	defer s.Close()
	if err := s.openNative(path); err != nil {
		t.Fatal(err)
	}
	s.all.start()
	expect(t, s, "sysgenid:0")

	for n := 1; n <= 3; n++ { // somebody else
		if _, err := bump(); err != nil {
			t.Fatal(err)
		}
		<-s.Events()
		expect(t, s, fmt.Sprintf("sysgenid:%d", n))
	}
	for range 3 { // we
		if _, err := s.Bump(bump); err != nil {
			t.Fatal(err)
		}
		<-s.Events()
		expect(t, s, "sysgenid:3")
	}
	// Somebody else while we do.
	if gen, err := s.Bump(func() (uint32, error) {
		if _, err := bump(); err != nil {
			return 0, err
		}
		return bump()
	}); gen != 8 || err != nil {
		t.Errorf("generation %d, %v", gen, err)
	}
	if id := s.ID(); id == "sysgenid:3" {
		t.Error("a bump beside ours is not seen")
	}
	if n := testing.AllocsPerRun(100, func() { _ = s.ID() }); n != 0 {
		t.Errorf("%v allocations per look", n)
	}
}
