//go:build vm

package vmtest

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"rouse/service"
	"rouse/vmm"
)

// busybox is the static program that gives a guest a shell; Debian's busybox-static has it.
func busybox(t *testing.T) string {
	t.Helper()
	for _, path := range []string{"/usr/bin/busybox", "/bin/busybox"} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	t.Fatal("no busybox: install busybox-static")
	return ""
}

// serviceTests are the supervisor's root tests, which make their own cgroups below the service's, and look at system calls,
// which takes a capability that services may have lost. With so small a pid_max the flood of children
// uses each pid several times.
const serviceTests = `[[service]]
name = "tests"
exec = ["/bin/busybox", "sh", "-c", "/bin/busybox --install -s /bin && mkdir -p /tmp /usr/share /var/lib /var/tmp && echo 1500 >/proc/sys/kernel/pid_max && exec /tests -test.v -test.timeout=700s"]
env = ["PATH=/bin", "TMPDIR=/tmp", "ROUSE_FLOOD=4000"]
oneshot = true
ready-timeout = "15m"
restart = "never"
` + everything

// TestServiceInGuest runs the supervisor's root tests in both kernels.
func TestServiceInGuest(t *testing.T) {
	forKernels(t, func(t *testing.T, series string) {
		tests := lab.Binary("service.test")
		if err := lab.goTool("test", "-c", "-tags", "root", "-o", tests, "./service"); err != nil {
			t.Fatal(err)
		}
		img := lab.Image(t, series, serviceTests, map[string]string{"/tests": tests, "/bin/busybox": busybox(t)})
		vm := Boot(t, img, func(c *vmm.Config) { c.MemoryMiB = 1024 })
		g := Talk(t, vm)
		lines := followTests(t, g)
		s := serviceDone(t, g, "tests")
		if s.State != service.Done || s.ExitCode != 0 {
			t.Errorf("state %s, status %d, output:\n%s", s.State, s.ExitCode, strings.Join(lines, "\n"))
		}
	})
}

// followTests waits until the tests have ended, and says which ones took how long. A test that hangs is named, not
// only that something does.
func followTests(t *testing.T, g *Guest) []string {
	t.Helper()
	var lines []string
	for deadline := time.Now().Add(4 * Timeout); time.Now().Before(deadline); time.Sleep(500 * time.Millisecond) {
		g.Do("rouse-log", map[string]any{"service": "tests", "lines": 1000}, &lines)
		if n := len(lines); n > 0 && (lines[n-1] == "PASS" || lines[n-1] == "FAIL" || strings.HasPrefix(lines[n-1], "exit status")) {
			return lines
		}
	}
	t.Fatalf("the tests do not end; last lines:\n%s", strings.Join(lines[max(0, len(lines)-20):], "\n"))
	return nil
}

// hostile builds a guest whose services mean harm.
func hostile(t *testing.T, series, services string) *Guest {
	t.Helper()
	program := lab.Binary("hostile")
	if err := lab.goTool("build", "-o", program, "./internal/vmtest/hostile"); err != nil {
		t.Fatal(err)
	}
	img := lab.Image(t, series, services, map[string]string{"/hostile": program})
	vm := Boot(t, img, func(c *vmm.Config) { c.MemoryMiB = 256 })
	t.Cleanup(func() {
		if text := Console(vm); strings.Contains(text, "Kernel panic") || strings.Contains(text, "goroutine ") {
			t.Errorf("PID 1 or the kernel panicked")
		}
	})
	return Talk(t, vm)
}

// lines waits until a service has printed at least n lines.
func (g *Guest) lines(service string, n int) []string {
	g.t.Helper()
	var lines []string
	for deadline := time.Now().Add(Timeout); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if g.Do("rouse-log", map[string]any{"service": service, "lines": 100}, &lines); len(lines) >= n {
			return lines
		}
	}
	g.t.Fatalf("service %s: %d lines, want %d:\n%s", service, len(lines), n, strings.Join(lines, "\n"))
	return nil
}

// deed is a service that does one thing to PID 1.
func deed(name, more string) string {
	return "[[service]]\nname = \"" + name + "\"\nexec = [\"/hostile\", \"" + name + "\"]\n" + more + "\n"
}

// TestServicesCannotHarmPID1: root's signals do nothing, and other users' are refused.
func TestServicesCannotHarmPID1(t *testing.T) {
	forKernels(t, func(t *testing.T, series string) {
		g := hostile(t, series, deed("signal", "")+deed("kill", "user = \"1000\"\n"))
		for name, want := range map[string][]string{
			"signal": {"done"},
			"kill":   {"kill 15 operation not permitted", "kill 9 operation not permitted", "kill 1 operation not permitted", "kill 0 operation not permitted", "done"},
		} {
			if got := g.lines(name, len(want)); strings.Join(got, "; ") != strings.Join(want, "; ") {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		g.Do("guest-ping", nil, nil)
	})
}

// TestServicesCannotStarvePID1: it answers while services fork and spin, print without end, or eat all memory.
func TestServicesCannotStarvePID1(t *testing.T) {
	for name, more := range map[string]string{"bomb": "", "flood": "", "memory": "restart = \"always\"\nrestart-delay = \"1ms\"\nstart-limit = -1\n"} {
		t.Run(name, func(t *testing.T) {
			g := hostile(t, "6.12", deed(name, more))
			g.lines(name, 1)
			for range 20 {
				g.Do("guest-ping", nil, nil)
			}
			if name == "memory" {
				for deadline := time.Now().Add(Timeout); ; time.Sleep(100 * time.Millisecond) {
					var all []service.Status
					if g.Do("rouse-services", nil, &all); all[0].Restarts >= 3 {
						break
					}
					if time.Now().After(deadline) {
						t.Fatalf("%+v", all)
					}
				}
			}
			g.Do("rouse-service", map[string]any{"name": name, "action": "restart", "timeout-ms": 50000}, nil)
		})
	}
}

// TestPID1Figures tells what PID 1 costs with one and with fifty services, and how long it takes from the kernel's
// hand-over to the first service. Memory is a budget; time is only told.
func TestPID1Figures(t *testing.T) {
	program := lab.Binary("figures")
	if err := lab.goTool("build", "-o", program, "./internal/vmtest/figures"); err != nil {
		t.Fatal(err)
	}
	forKernels(t, func(t *testing.T, series string) {
		for _, n := range []int{1, 50} {
			services := "[[service]]\nname = \"figures\"\nexec = [\"/figures\", \"late\"]\n" + everything
			for i := 1; i < n; i++ {
				services += fmt.Sprintf("[[service]]\nname = \"s%d\"\nexec = [\"/figures\"]\n", i)
			}
			vm := Boot(t, lab.Image(t, series, services, map[string]string{"/figures": program}), nil)
			line := Talk(t, vm).lines("figures", 1)[0]
			t.Logf("%d services: %s", n, line)
			var us, pss int
			if _, err := fmt.Sscanf(line, "start_us=%d pss_kib=%d", &us, &pss); err != nil || us <= 0 || pss <= 0 || pss > 12<<10 {
				t.Errorf("%d services: %s, %v; want at most 12 MiB", n, line, err)
			}
			vm.Close()
		}
	})
}
