package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"rouse/quiesce"
	"rouse/vmm"
	"rouse/vmm/roster"
)

type cloneCommand struct {
	Snapshot string        `arg:"" type:"existingdir" help:"Folder made by rouse bake, pull or import."`
	N        int           `short:"n" default:"1" help:"How many clones."`
	Name     string        `placeholder:"PATTERN" help:"Names of the clones for ps, logs and stop, as in web-{n}; the snapshot's name with the next free numbers if not given."`
	Publish  []string      `short:"p" placeholder:"[HOST:]GUEST" help:"TCP port of the guest that is reached from the host; clone i has host port HOST+i. Those given to rouse bake if not given."`
	HostPort uint16        `placeholder:"PORT" help:"Host port of the first clone for the ports given to rouse bake; the next ones follow. Any free ones if not given."`
	Tap      []string      `placeholder:"DEVICE" help:"TAP device of each clone in place of QEMU's user-mode network; a pattern such as tap{n} will do for all."`
	Detach   bool          `short:"d" help:"Leave the clones running when they are ready; rouse ps, logs, stop and rm know them."`
	Wait     bool          `default:"true" negatable:"" help:"Wait until each clone is ready. Without waiting, the gate still opens only when it is safe."`
	Timeout  time.Duration `default:"1m" help:"How long a clone may take until it is ready."`
	Exec     string        `placeholder:"COMMAND" help:"Shell command to run for each clone, side by side, once all are ready; the clones end with it. ROUSE_CLONE, ROUSE_NAME, ROUSE_PORT, ROUSE_PORT_<guest port>, ROUSE_PORTS and ROUSE_VMGENID tell it of its clone."`
	Exit     bool          `help:"End the clones as soon as all are ready."`
	Capture  string        `type:"existingdir" placeholder:"DIR" help:"Write each clone's traffic to DIR/clone-N.pcap."`
	Verify   bool          `default:"true" negatable:"" help:"Compare the snapshot's files with their digests; those that were compared before and have not changed since are not read again."`

	VMMProgram string `name:"vmm-program" placeholder:"FILE" help:"Program of the VMM, for a snapshot of Firecracker or Cloud Hypervisor."`
	VsockPort  uint32 `default:"1025" help:"Vsock port of the guest's control channel, for such a snapshot."`

	identityFlags `group:"Identity of each clone; {n} is its number, {x} the same in two hexadecimal digits, {n+10} and {x+16} add, {id} is 32 random hexadecimal digits"`
}

// identityFlags make the template of the clones' identities.
type identityFlags struct {
	Identity  string   `type:"existingfile" placeholder:"FILE" help:"JSON: one object with patterns in it, or an array with one object for each clone: hostname, machine-id, interfaces (name, mac, addresses, gateway4, gateway6)."`
	Hostname  string   `placeholder:"PATTERN" help:"Host name, as in web-{n}."`
	MachineID string   `name:"machine-id" placeholder:"PATTERN" help:"/etc/machine-id, as in {id}."`
	Interface string   `default:"eth0" help:"Interface of the guest that --mac, --address and --gateway are for."`
	MAC       string   `name:"mac" placeholder:"PATTERN" help:"Hardware address, as in 52:54:00:00:01:{x}."`
	Address   []string `placeholder:"PATTERN" help:"Address with prefix length, as in 192.0.2.{n+10}/24."`
	Gateway   string   `placeholder:"ADDRESS" help:"IPv4 gateway."`
	Clock     bool     `default:"true" negatable:"" help:"Hand over the host's time and a seed for the random pool also if nothing else is given."`
}

// list is empty if the clones keep their source's identity.
func (f identityFlags) list(n int) ([]vmm.Identity, error) {
	template := vmm.Identity{Hostname: f.Hostname, MachineID: f.MachineID}
	if f.MAC != "" || len(f.Address) > 0 {
		template.Interfaces = []vmm.IdentityInterface{{Name: f.Interface, MAC: f.MAC, Addresses: f.Address, Gateway4: f.Gateway}}
	}
	text, err := json.Marshal(template)
	if err != nil {
		return nil, err
	}
	if f.Identity != "" {
		if string(text) != "{}" {
			return nil, errors.New("--identity: put host name, machine id and interfaces into the file, not beside it")
		}
		if text, err = os.ReadFile(f.Identity); err != nil {
			return nil, err
		}
	}
	if string(text) == "{}" && !f.Clock {
		return nil, nil
	}
	return vmm.Identities(text, n)
}

// cloneLine is what --json prints of one clone.
type cloneLine struct {
	Clone      int             `json:"clone"`
	Name       string          `json:"name"`
	VMGenID    string          `json:"vmgenid"`
	Generation uint32          `json:"generation"`
	Ports      []vmm.Forward   `json:"ports"`
	RestoreMS  float64         `json:"restore-ms"`
	ReadyMS    float64         `json:"ready-ms"`
	Console    string          `json:"console"`
	Report     json.RawMessage `json:"report"`
}

// Run starts clones and keeps them until it is told to end.
func (c *cloneCommand) Run(s *session) error {
	defer s.ui.close()
	if c.N < 1 {
		return errors.New("-n: at least one clone")
	}
	m, err := vmm.ReadManifest(c.Snapshot)
	if err != nil {
		return err
	}
	if m.VMM != "" {
		return c.runMicro(s, m)
	}
	config, err := c.config(s)
	if err != nil {
		return err
	}
	crew, err := enroll(c, &config)
	if err != nil {
		return err
	}
	defer crew.strike()
	clones, err := vmm.StartClones(s.ctx, config)
	if err != nil {
		return err
	}
	s.ui.close()
	if err := crew.ready(clones); err != nil {
		return errors.Join(err, vmm.CloseAll(clones))
	}
	if err := c.use(s, crew, clones); err != nil || !c.Detach {
		return errors.Join(err, vmm.CloseAll(clones))
	}
	return crew.release(clones)
}

func (c *cloneCommand) config(s *session) (vmm.CloneConfig, error) {
	v := vmm.CloneConfig{Snapshot: c.Snapshot, N: c.N, HostPort: c.HostPort, Timeout: c.Timeout, Capture: c.Capture,
		NoWait: !c.Wait, NoVerify: !c.Verify, Detach: c.Detach,
		Step: func(i int, what string) { s.ui.step(fmt.Sprintf("clone %d", i), what, 3) }}
	if c.Detach && (c.Exec != "" || c.Exit) {
		return v, errors.New("--detach leaves the clones running; --exec and --exit end them")
	}
	var err error
	if v.Publish, err = parsePorts(c.Publish); err != nil {
		return v, err
	}
	if len(c.Tap) == 1 && c.N > 1 {
		c.Tap = append(make([]string, 0, c.N), c.Tap[0])
		for len(c.Tap) < c.N {
			c.Tap = append(c.Tap, c.Tap[0])
		}
	}
	for i, tap := range c.Tap {
		v.Taps = append(v.Taps, vmm.Expand(tap, i))
	}
	c.Clock = c.Clock && c.Wait // nobody would hear whether it was taken
	v.Identities, err = c.identityFlags.list(c.N)
	return v, err
}

func (c *cloneCommand) use(s *session, crew *crew, clones []*vmm.Clone) error {
	for i, k := range clones {
		if err := s.emit(crew.line(k, i), crew.entries[i].Name+": "+describe(k)); err != nil {
			return err
		}
	}
	switch {
	case c.Exec != "":
		return c.execAll(s.ctx, crew, clones)
	case c.Exit || c.Detach:
		return nil
	}
	if !s.json {
		fmt.Fprintln(os.Stderr, "running; Ctrl-C ends them")
	}
	<-anyEnd(s.ctx, clones)
	return nil
}

// anyEnd is closed when the command is to end, or all clones have: each can be stopped by itself.
func anyEnd(ctx context.Context, clones []*vmm.Clone) <-chan struct{} {
	end := make(chan struct{})
	go func() {
		defer close(end)
		for _, k := range clones {
			select {
			case <-k.VM.Exited():
			case <-ctx.Done():
				return
			}
		}
	}()
	return end
}

// execAll runs the command for each clone side by side; each failure is told with its clone.
func (c *cloneCommand) execAll(ctx context.Context, crew *crew, clones []*vmm.Clone) error {
	errs := make([]error, len(clones))
	var wg sync.WaitGroup
	for i, k := range clones {
		wg.Go(func() {
			if err := runShell(ctx, c.Exec, crew.env(clones, i)); err != nil {
				errs[i] = fmt.Errorf("clone %d: %w", k.Index, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// crew is what the roster knows of the clones of one command.
type crew struct {
	roster  *roster.Roster
	entries []roster.Entry
	mu      sync.Mutex // clones start side by side
	keep    bool
}

// enroll enters all clones before any of them runs, so that none is ever unknown.
func enroll(c *cloneCommand, config *vmm.CloneConfig) (*crew, error) {
	r, err := roster.Open("")
	if err != nil {
		return nil, err
	}
	if _, err := r.List(); err != nil { // strikes what was left behind
		return nil, err
	}
	k := &crew{roster: r}
	snapshot, err := filepath.Abs(c.Snapshot)
	if err != nil {
		return nil, err
	}
	for i := range c.N {
		name, numbered := vmm.Expand(c.Name, i), c.Name != ""
		if !numbered {
			name = filepath.Base(snapshot)
		}
		e, err := r.Reserve(name, numbered, roster.Entry{Snapshot: snapshot, Detached: c.Detach})
		if err != nil {
			k.strike()
			return nil, err
		}
		k.entries = append(k.entries, e)
		config.Dirs = append(config.Dirs, r.Folder(e.Name))
	}
	config.Started = k.started
	return k, nil
}

func (k *crew) started(i int, vm *vmm.VM) error {
	p, err := roster.Identify(vm.PID())
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.entries[i].QEMU = p
	return k.roster.Update(k.entries[i])
}

func (k *crew) ready(clones []*vmm.Clone) error {
	var errs []error
	for i, c := range clones {
		e := &k.entries[i]
		e.State, e.VMGenID, e.Generation = roster.Ready, c.VMGenID, c.Status.Generation
		for _, f := range c.Forwards {
			e.Ports = append(e.Ports, roster.Port{Host: fmt.Sprintf("%s:%d", f.HostIP, f.HostPort), Guest: f.GuestPort})
		}
		errs = append(errs, k.roster.Update(*e))
	}
	return errors.Join(errs...)
}

// release lets detached clones go on.
func (k *crew) release(clones []*vmm.Clone) error {
	k.keep = true
	for _, c := range clones {
		c.VM.Detach()
	}
	return nil
}

func (k *crew) strike() {
	if k.keep {
		return
	}
	for _, e := range k.entries {
		_ = k.roster.Strike(e.Name)
	}
}

func (k *crew) line(c *vmm.Clone, i int) cloneLine {
	return cloneLine{Clone: c.Index, Name: k.entries[i].Name, VMGenID: c.VMGenID, Generation: c.Status.Generation, Ports: c.Forwards,
		RestoreMS: ms(c.Restore), ReadyMS: ms(c.Ready), Console: c.VM.Console(), Report: c.Report}
}

// env tells a command of its clone.
func (k *crew) env(clones []*vmm.Clone, i int) []string {
	c := clones[i]
	env := append(portEnv(c.Forwards), "ROUSE_CLONE="+strconv.Itoa(i), "ROUSE_NAME="+k.entries[i].Name, "ROUSE_VMGENID="+c.VMGenID,
		"ROUSE_PORTS="+strings.Join(firstPorts(clones), " "))
	if len(c.Forwards) > 0 {
		env = append(env, fmt.Sprintf("ROUSE_PORT=%d", c.Forwards[0].HostPort))
	}
	return env
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// describe is one clone for people.
func describe(k *vmm.Clone) string {
	var ports []string
	for _, f := range k.Forwards {
		ports = append(ports, fmt.Sprintf("%s:%d -> %d", f.HostIP, f.HostPort, f.GuestPort))
	}
	where := strings.Join(ports, ", ")
	if where != "" {
		where = "\n  " + where
	}
	if k.Status.State == "" {
		return fmt.Sprintf("restored in %.0f ms, not waited for%s", ms(k.Restore), where)
	}
	var r quiesce.Report
	text := ""
	if err := json.Unmarshal(k.Report, &r); err == nil {
		text = fmt.Sprintf(", %d inherited connections severed; %s", r.Severed, phases(r))
	}
	return fmt.Sprintf("%s, generation %d, ready %.0f ms after its resume (restored in %.0f ms)%s%s",
		k.VMGenID, k.Status.Generation, ms(k.Ready), ms(k.Restore), text, where)
}

func firstPorts(clones []*vmm.Clone) []string {
	var list []string
	for _, k := range clones {
		if len(k.Forwards) > 0 {
			list = append(list, fmt.Sprint(k.Forwards[0].HostPort))
		}
	}
	return list
}
