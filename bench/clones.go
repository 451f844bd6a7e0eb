package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"rouse/config"
	"rouse/rootfs/image"
	"rouse/vmm"
)

const (
	webPort    = 443
	webConfig  = "hostname = \"web\"\n\n[[service]]\nname = \"web\"\nexec = [\"/usr/bin/webserver\"]\nready = \"notify\"\n"
	plainWords = "console=ttyS0 quiet panic=-1 plain.exec=/usr/bin/webserver ip=10.0.2.15::10.0.2.2:255.255.255.0:::off"
)

// endToEnd is what a caller of a serverless platform waits for: from the start of the VMM's process to the
// first HTTPS answer, booted or resumed, with rouse and with an init that knows nothing of snapshots.
func endToEnd(ctx context.Context, l *lab, r *Record) error {
	w, err := l.bakedWeb(ctx)
	if err != nil {
		return err
	}
	for range l.repeat(7) {
		for _, c := range []struct {
			name string
			run  func(context.Context) error
		}{
			{"boot, plain init", func(ctx context.Context) error { return w.plain(ctx, "") }},
			{"boot, rouse", w.boot},
			{"resume, plain init (unsafe)", func(ctx context.Context) error { return w.plain(ctx, w.plainMemory) }},
			{"resume, rouse", w.resume},
		} {
			began := time.Now()
			if err := c.run(ctx); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			r.add(c.name, 0, "first-answer", "ms", time.Since(began).Seconds()*1000)
		}
	}
	return w.resumeParts(ctx, r)
}

// web is one server in two images and their snapshots.
type web struct {
	l               *lab
	image, snapshot string // of rouse
	plainInitrd     string
	plainMemory     string
}

// bakedWeb is made for the first suite that wants it.
func (l *lab) bakedWeb(ctx context.Context) (*web, error) {
	if l.baked != nil {
		return l.baked, nil
	}
	w, err := l.web(ctx)
	if err == nil {
		err = w.bake(ctx)
	}
	if err != nil {
		return nil, err
	}
	l.baked = w
	return w, nil
}

func (l *lab) web(ctx context.Context) (*web, error) {
	dir, err := os.MkdirTemp(l.dir, "web-")
	if err != nil {
		return nil, err
	}
	w := &web{l: l, image: filepath.Join(dir, "image"), snapshot: filepath.Join(dir, "snapshot"),
		plainInitrd: filepath.Join(dir, "plain.cpio"), plainMemory: filepath.Join(dir, "plain-memory")}
	for name, pkg := range map[string]string{"webserver": "./examples/webserver", "plaininit": "./examples/plaininit"} {
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(l.dir, name), pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("go build %s: %w\n%s", pkg, err, out)
		}
	}
	server := image.File{Path: "/usr/bin/webserver", Source: filepath.Join(l.dir, "webserver"), Mode: 0o755}
	if err := l.build(w.plainInitrd, image.Spec{Init: filepath.Join(l.dir, "plaininit"), Files: []image.File{server}}); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(w.image, 0o755); err != nil {
		return nil, err
	}
	if err := l.rouseImage(w.image, webConfig); err != nil {
		return nil, err
	}
	kernel, err := filepath.Abs(filepath.Join(l.kernel, "vmlinuz"))
	if err != nil {
		return nil, err
	}
	if err := os.Symlink(kernel, filepath.Join(w.image, vmm.KernelFile)); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	return w, os.WriteFile(filepath.Join(w.image, vmm.CmdlineFile), []byte("quiet\n"), 0o644)
}

// rouseImage writes the initramfs of the server under rouse into an image folder.
func (l *lab) rouseImage(folder, configuration string) error {
	return l.build(filepath.Join(folder, vmm.InitrdFile), image.Spec{Init: l.bin("init"), Config: []byte(configuration),
		Files: []image.File{{Path: "/usr/bin/webserver", Source: filepath.Join(l.dir, "webserver"), Mode: 0o755}}})
}

// build writes an initramfs with the kernel's modules.
func (l *lab) build(path string, s image.Spec) error {
	s.ModulesDir, s.Optional, s.Compress = filepath.Join(l.kernel, "modules"), config.GuestModules(), "none"
	return writeImage(path, s)
}

// bake makes both snapshots, each in the way that maps memory.
func (w *web) bake(ctx context.Context) error {
	if _, err := vmm.Bake(ctx, vmm.BakeConfig{Image: w.image, Output: w.snapshot, QuiesceTimeout: time.Minute,
		VM: vmm.Config{Forwards: []vmm.Forward{{GuestPort: webPort}}}}); err != nil {
		return fmt.Errorf("bake: %w", err)
	}
	c := w.plainConfig("")
	c.MapMemory = true
	vm, err := vmm.Start(ctx, c)
	if err != nil {
		return err
	}
	defer vm.Close()
	if err := answer(ctx, vm); err != nil {
		return err
	}
	return vm.Snapshot(ctx, w.plainMemory)
}

func (w *web) plainConfig(incoming string) vmm.Config {
	return vmm.Config{Name: "plain", Kernel: filepath.Join(w.l.kernel, "vmlinuz"), Initrd: w.plainInitrd, Cmdline: plainWords, GUID: "auto",
		Incoming: incoming, MapMemory: incoming != "", Forwards: []vmm.Forward{{GuestPort: webPort}}}
}

func (w *web) plain(ctx context.Context, incoming string) error {
	return start(ctx, w.plainConfig(incoming))
}

func (w *web) boot(ctx context.Context) error {
	return start(ctx, vmm.Config{Name: "rouse", Kernel: filepath.Join(w.image, vmm.KernelFile), Initrd: filepath.Join(w.image, vmm.InitrdFile),
		Cmdline: "quiet console=ttyS0 panic=-1 ip=10.0.2.15::10.0.2.2:255.255.255.0:::off", GUID: "auto", Forwards: []vmm.Forward{{GuestPort: webPort}}})
}

func start(ctx context.Context, c vmm.Config) error {
	vm, err := vmm.Start(ctx, c)
	if err != nil {
		return err
	}
	defer vm.Close()
	return answer(ctx, vm)
}

// resume asks when the clone has told that it is READY: before, its gate drops what it is asked.
func (w *web) resume(ctx context.Context) error {
	clones, err := vmm.StartClones(ctx, vmm.CloneConfig{Snapshot: w.snapshot, N: 1, NoVerify: true})
	if err != nil {
		return err
	}
	defer vmm.CloseAll(clones)
	return answer(ctx, clones[0].VM)
}

// answer asks until there is an answer.
func answer(ctx context.Context, vm *vmm.VM) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	forwards, err := vm.Forwards(ctx)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	url := fmt.Sprintf("https://127.0.0.1:%d/", forwards[0].HostPort)
	for {
		err := get(ctx, client, url)
		if err == nil {
			return nil
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("the server does not answer: %w", err)
		}
	}
}

func get(ctx context.Context, client *http.Client, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return err
}
