package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestMicroVM bakes and clones by the command line, against the strict fake that vmm/microvm's tests are.
func TestMicroVM(t *testing.T) {
	dir := t.TempDir()
	fake := filepath.Join(dir, "fake")
	if out, err := exec.Command("go", "test", "-c", "-o", fake, "rouse/vmm/microvm").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	tmp := filepath.Join(dir, "t")
	must(t, os.Mkdir(tmp, 0o700))
	t.Setenv("TMPDIR", tmp)
	image := filepath.Join(dir, "image")
	for name, text := range map[string]string{"vmlinuz": "\x7fELF", "initrd": "initrd", "cmdline": "quiet\n", "image.json": `{"memory-mib": 300, "ports": [443]}`} {
		put(t, filepath.Join(image, name), text, 0o644)
	}
	for _, vmm := range []string{"firecracker", "cloud-hypervisor"} {
		t.Run(vmm, func(t *testing.T) {
			snapshot := filepath.Join(dir, vmm)
			var out, diag bytes.Buffer
			must(t, run([]string{"--json", "bake", image, "-o", snapshot, "--vmm", vmm, "--vmm-program", fake, "--tap", "tap9"}, &out, &diag))
			if !strings.Contains(out.String(), `"vmm":"`+vmm+`"`) || !strings.Contains(out.String(), `"memory-mib":300`) {
				t.Errorf("%s", out.String())
			}
			out.Reset()
			must(t, run([]string{"--json", "clone", snapshot, "-n", "2", "--vmm-program", fake, "--tap", "tap{n}", "--hostname", "web-{n}", "--exit"}, &out, &diag))
			if strings.Count(out.String(), `"generation":1`) != 2 {
				t.Errorf("%s", out.String())
			}
			left, err := os.ReadDir(tmp)
			must(t, err)
			if len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}
