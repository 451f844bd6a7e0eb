package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"rouse/quiesce"
	"rouse/vmm"
)

type cloneCommand struct {
	Snapshot string        `arg:"" type:"existingdir" help:"Folder made by rouse bake."`
	N        int           `short:"n" default:"1" help:"How many clones."`
	HostPort uint16        `placeholder:"PORT" help:"Host port of the first clone; the next ones follow. Any free ones if not given."`
	Timeout  time.Duration `default:"1m" help:"How long a clone may take until it is ready."`
	Exec     string        `placeholder:"COMMAND" help:"Shell command to run once all are ready; the clones end with it. ROUSE_PORTS has the first port of each."`
	Exit     bool          `help:"End the clones as soon as all are ready."`
	Capture  string        `type:"existingdir" placeholder:"DIR" help:"Write each clone's traffic to DIR/clone-N.pcap."`
}

// cloneLine is what --json prints of one clone.
type cloneLine struct {
	Clone      int             `json:"clone"`
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
	clones, err := vmm.StartClones(s.ctx, vmm.CloneConfig{Snapshot: c.Snapshot, N: c.N, HostPort: c.HostPort,
		Timeout: c.Timeout, Capture: c.Capture, Step: func(i int, what string) { s.ui.step(fmt.Sprintf("clone %d", i), what, 3) }})
	if err != nil {
		return err
	}
	s.ui.close()
	return errors.Join(c.use(s, clones), vmm.CloseAll(clones))
}

func (c *cloneCommand) use(s *session, clones []*vmm.Clone) error {
	for _, k := range clones {
		if err := s.emit(line(k), describe(k)); err != nil {
			return err
		}
	}
	switch {
	case c.Exec != "":
		return runShell(s.ctx, c.Exec, []string{"ROUSE_PORTS=" + strings.Join(firstPorts(clones), " ")})
	case c.Exit:
		return nil
	}
	if !s.json {
		fmt.Fprintln(os.Stderr, "running; Ctrl-C ends them")
	}
	<-s.ctx.Done()
	return nil
}

func line(k *vmm.Clone) cloneLine {
	return cloneLine{Clone: k.Index, VMGenID: k.VMGenID, Generation: k.Status.Generation, Ports: k.Forwards,
		RestoreMS: ms(k.Restore), ReadyMS: ms(k.Ready), Console: k.VM.Console(), Report: k.Report}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// describe is one clone for people.
func describe(k *vmm.Clone) string {
	var r quiesce.Report
	text := ""
	if err := json.Unmarshal(k.Report, &r); err == nil {
		text = fmt.Sprintf(", %d inherited connections severed; %s", r.Severed, phases(r))
	}
	var ports []string
	for _, f := range k.Forwards {
		ports = append(ports, fmt.Sprintf("%s:%d -> %d", f.HostIP, f.HostPort, f.GuestPort))
	}
	return fmt.Sprintf("clone %d: %s, generation %d, ready %.0f ms after its resume (restored in %.0f ms)%s\n  %s",
		k.Index, k.VMGenID, k.Status.Generation, ms(k.Ready), ms(k.Restore), text, strings.Join(ports, ", "))
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
