package microvm

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"rouse/control"
)

// api speaks HTTP over a unix socket.
type api struct {
	client *http.Client
	base   string // of paths
}

func newAPI(socket, base string) *api {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	return &api{&http.Client{Transport: &http.Transport{DialContext: dial}}, base}
}

// maxAnswer is how much of an error's body is read, in bytes.
const maxAnswer = 64 << 10

// do sends a request; a body of nil is none.
func (a *api) do(ctx context.Context, method, path string, body any) error {
	var r io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		r = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://localhost"+a.base+path, r)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 == 2 {
		return nil
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, fault(text))
}

// fault is what the VMM says of it: Firecracker's Error has a fault_message, Cloud Hypervisor a list.
func fault(text []byte) string {
	var fc struct {
		Message string `json:"fault_message"`
	}
	if json.Unmarshal(text, &fc) == nil && fc.Message != "" {
		return fc.Message
	}
	return strings.TrimSpace(string(text))
}

// await waits until the VMM answers on its socket.
func (a *api) await(ctx context.Context, path string, ended <-chan struct{}) error {
	for {
		err := a.do(ctx, http.MethodGet, path, nil)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-ended:
			return errors.New("it ended at once")
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// driver is what the two do differently.
type driver interface {
	// args start the program with its API on a socket.
	args(socket string) []string
	// ready is a path to ask whether it is there.
	ready() string
	boot(ctx context.Context, a *api, m Machine) error
	pause(ctx context.Context, a *api) error
	resume(ctx context.Context, a *api) error
	// snapshot writes into dir, an absolute path.
	snapshot(ctx context.Context, a *api, dir string) error
	// load restores a snapshot and leaves it paused; run is the clone's own folder.
	load(ctx context.Context, a *api, dir, run string, o Override) error
	// tell puts what the clone is to be where the guest finds it, if there is such a place.
	tell(ctx context.Context, a *api, words map[string]any) error
	base() string
}

// Override is what a clone has of its own.
type Override struct {
	Tap   string
	Vsock string // unix socket
}

func driverOf(kind string) (driver, error) {
	switch kind {
	case Firecracker:
		return fc{}, nil
	case CloudHypervisor:
		return ch{}, nil
	}
	return nil, fmt.Errorf("vmm %q: use %s or %s", kind, Firecracker, CloudHypervisor)
}

// fc is Firecracker, by src/firecracker/swagger/firecracker.yaml.
type fc struct{}

func (fc) base() string                { return "" }
func (fc) ready() string               { return "/version" }
func (fc) args(socket string) []string { return []string{"--api-sock", socket} }

func (fc) boot(ctx context.Context, a *api, m Machine) error {
	if err := CheckKernel(m.Kernel); err != nil {
		return err
	}
	c := m.firecracker()
	type step struct {
		path string
		body any
	}
	steps := []step{{"/boot-source", c.BootSource}, {"/machine-config", c.Machine}}
	for _, d := range c.Drives {
		steps = append(steps, step{"/drives/" + d.ID, d})
	}
	for _, n := range c.Network {
		steps = append(steps, step{"/network-interfaces/" + n.ID, n})
	}
	if c.MMDS != nil {
		steps = append(steps, step{"/mmds/config", c.MMDS})
	}
	if c.Vsock != nil {
		steps = append(steps, step{"/vsock", c.Vsock})
	}
	steps = append(steps, step{"/entropy", struct{}{}}, step{"/actions", map[string]string{"action_type": "InstanceStart"}})
	for _, s := range steps {
		if err := a.do(ctx, http.MethodPut, s.path, s.body); err != nil {
			return err
		}
	}
	return nil
}

func (fc) state(ctx context.Context, a *api, state string) error {
	return a.do(ctx, http.MethodPatch, "/vm", map[string]string{"state": state})
}

func (f fc) pause(ctx context.Context, a *api) error  { return f.state(ctx, a, "Paused") }
func (f fc) resume(ctx context.Context, a *api) error { return f.state(ctx, a, "Resumed") }

// Files of a Firecracker snapshot.
const (
	fcState  = "state"
	fcMemory = "state.memory"
)

func (fc) snapshot(ctx context.Context, a *api, dir string) error {
	return a.do(ctx, http.MethodPut, "/snapshot/create", map[string]string{
		"snapshot_type": "Full", "snapshot_path": filepath.Join(dir, fcState), "mem_file_path": filepath.Join(dir, fcMemory)})
}

type fcLoad struct {
	State    string        `json:"snapshot_path"`
	Memory   fcBackend     `json:"mem_backend"`
	Resume   bool          `json:"resume_vm"`
	Networks []fcNet       `json:"network_overrides,omitempty"`
	Vsock    *fcVsockMoved `json:"vsock_override,omitempty"`
}

type fcBackend struct {
	Type string `json:"backend_type"`
	Path string `json:"backend_path"`
}

type fcVsockMoved struct {
	Path string `json:"uds_path"`
}

// load maps the memory privately: N clones cost one copy and what each of them changes.
func (fc) load(ctx context.Context, a *api, dir, _ string, o Override) error {
	l := fcLoad{State: filepath.Join(dir, fcState), Memory: fcBackend{"File", filepath.Join(dir, fcMemory)}}
	if o.Tap != "" {
		l.Networks = []fcNet{{ID: netID, Tap: o.Tap}}
	}
	if o.Vsock != "" {
		l.Vsock = &fcVsockMoved{o.Vsock}
	}
	return a.do(ctx, http.MethodPut, "/snapshot/load", l)
}

// tell fills the metadata store, which no snapshot has in it.
func (fc) tell(ctx context.Context, a *api, words map[string]any) error {
	return a.do(ctx, http.MethodPut, "/mmds", map[string]any{"rouse": words})
}

// ch is Cloud Hypervisor, by vmm/src/api/openapi/cloud-hypervisor.yaml.
type ch struct{}

func (ch) base() string                { return "/api/v1" }
func (ch) ready() string               { return "/vmm.ping" }
func (ch) args(socket string) []string { return []string{"--api-socket", "path=" + socket} }

func (ch) boot(ctx context.Context, a *api, m Machine) error {
	if err := a.do(ctx, http.MethodPut, "/vm.create", m.cloudHypervisor()); err != nil {
		return err
	}
	return a.do(ctx, http.MethodPut, "/vm.boot", nil)
}

func (ch) pause(ctx context.Context, a *api) error {
	return a.do(ctx, http.MethodPut, "/vm.pause", nil)
}

func (ch) resume(ctx context.Context, a *api) error {
	return a.do(ctx, http.MethodPut, "/vm.resume", nil)
}

func (ch) snapshot(ctx context.Context, a *api, dir string) error {
	return a.do(ctx, http.MethodPut, "/vm.snapshot", map[string]string{"destination_url": "file://" + dir})
}

// chConfigFile of a snapshot is the machine's configuration; a restore has no other overrides than another one.
const chConfigFile = "config.json"

// load gives the clone a folder that has its own configuration and links to everything else.
func (ch) load(ctx context.Context, a *api, dir, run string, o Override) error {
	own := filepath.Join(run, "snapshot")
	if err := os.Mkdir(own, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == chConfigFile {
			continue
		}
		if err := os.Symlink(filepath.Join(dir, e.Name()), filepath.Join(own, e.Name())); err != nil {
			return err
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, chConfigFile))
	if err == nil {
		text, err = o.rewrite(text)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", chConfigFile, err)
	}
	if err := os.WriteFile(filepath.Join(own, chConfigFile), text, 0o600); err != nil {
		return err
	}
	return a.do(ctx, http.MethodPut, "/vm.restore", map[string]any{"source_url": "file://" + own, "resume": false})
}

// rewrite changes what a clone has of its own and keeps all else, also what this code does not know.
func (o Override) rewrite(config []byte) ([]byte, error) {
	var c map[string]any
	if err := json.Unmarshal(config, &c); err != nil {
		return nil, err
	}
	if v, ok := c["vsock"].(map[string]any); ok && o.Vsock != "" {
		v["socket"] = o.Vsock
	}
	nets, _ := c["net"].([]any)
	if o.Tap != "" && len(nets) == 0 {
		return nil, errors.New("the snapshot has no network interface to bind to " + o.Tap)
	}
	for _, n := range nets {
		if net, ok := n.(map[string]any); ok && net["id"] == netID && o.Tap != "" {
			net["tap"] = o.Tap
		}
	}
	return json.Marshal(c)
}

// tell: there is no metadata service.
func (ch) tell(context.Context, *api, map[string]any) error { return nil }

// dialGuest connects to a vsock port of the guest by the VMM's socket, once the guest listens there.
func dialGuest(ctx context.Context, socket string, port uint32) (*control.Client, error) {
	for {
		conn, err := connectVsock(ctx, socket, port)
		if err == nil {
			return control.NewClient(conn), nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("vsock port %d of the guest: %w; does its configuration have control.vsock = %d?", port, errors.Join(ctx.Err(), err), port)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// connectVsock says "CONNECT port" and wants "OK number" (Firecracker's docs/vsock.md, host-initiated connections).
func connectVsock(ctx context.Context, socket string, port uint32) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if _, err = fmt.Fprintf(conn, "CONNECT %d\n", port); err == nil {
		err = readOK(conn)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// readOK reads byte by byte: what follows the line is the guest's.
func readOK(r io.Reader) error {
	line, err := bufio.NewReaderSize(oneByte{io.LimitReader(r, 64)}, 16).ReadString('\n')
	if err != nil {
		return err
	}
	if !strings.HasPrefix(line, "OK ") {
		return fmt.Errorf("answer %q, want OK", line)
	}
	return nil
}

type oneByte struct{ r io.Reader }

func (o oneByte) Read(p []byte) (int, error) { return o.r.Read(p[:min(1, len(p))]) }
