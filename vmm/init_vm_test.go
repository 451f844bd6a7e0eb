//go:build vm

package vmm

import (
	"os"
	"path/filepath"
	"testing"

	"rouse/config"
	"rouse/rootfs/image"
)

// webConfig runs the example server under the real init.
const webConfig = `hostname = "web"

[quiesce]
timeout = "60s"

[adjust]
timeout = "60s"

[[service]]
name = "web"
exec = ["/usr/bin/webserver"]
ready = "notify"
`

// webImage is an image folder with the real init and the example server, built with the given tags.
func webImage(t testing.TB, configuration, tags string) string {
	t.Helper()
	dir := t.TempDir()
	for name, args := range map[string][]string{
		"guest-init": {"build", "../init"},
		"webserver":  {"build", "-tags=" + tags, "../examples/webserver"},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), build(t, args...), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Create(filepath.Join(dir, InitrdFile))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	err = image.Build(f, image.Spec{Init: filepath.Join(dir, "guest-init"), Config: []byte(configuration), Compress: "none",
		ModulesDir: filepath.Join(out(t), "kernels/6.12/modules"), Optional: config.GuestModules(),
		Files: []image.File{{Path: "/usr/bin/webserver", Source: filepath.Join(dir, "webserver"), Mode: 0o755}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(kernel(t, "6.12"), filepath.Join(dir, KernelFile)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, CmdlineFile), []byte("quiet\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}
