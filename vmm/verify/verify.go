// Package verify clones a snapshot and looks, from outside, for what the clones share and must not.
//
// The easy case: two clones, each asked the same questions, and whatever ought to be each one's own is
// compared: the machine's generation, the values that a service answers with, its TLS randoms and
// session-ticket keys, frames that left before the release. What was found is kept beside the verdict, so
// that a reader can judge for himself.
//
// It cannot prove that nothing repeats, only show what does. So a service without a tracked watcher and without
// an after-restore hook fails too, even if nothing was seen to repeat: nobody has told it that it was cloned.
package verify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"rouse/control"
	"rouse/internal/capture"
	"rouse/vmm"
)

// Config says what to verify.
type Config struct {
	Snapshot string
	Timeout  time.Duration // for each clone to become ready
	// Path is asked for with HTTP on every port; "/" if empty.
	Path string
	// Allow names services that are known to hold nothing that clones must not share.
	Allow []string
	// Exec prints, for a clone's forwards, values that must differ between clones, one a line; nil is none.
	Exec func(ctx context.Context, clone int, forwards []vmm.Forward) (string, error)
	Step func(clone int, what string)
}

// Judgements of a check.
const (
	Pass = "pass"
	Fail = "fail"
	Note = "note" // worth knowing, endangers nothing by itself
)

// Check is one comparison with its evidence.
type Check struct {
	Name    string   `json:"check"`
	Verdict string   `json:"verdict"`
	Says    string   `json:"says"`
	Values  []string `json:"values,omitempty"` // each clone's
}

// Result is the verdict.
type Result struct {
	Safe   bool    `json:"safe"`
	Checks []Check `json:"checks"`
}

// clones are how many are compared: what repeats in two repeats in all.
const clones = 2

// facts are what one clone says and does.
type facts struct {
	clone    *vmm.Clone
	host     string
	macs     []string
	services []service
	watchers []watcher
	hooked   []string // services whose after-restore hooks ran well
	own      map[string]string
	ports    []answers
	printed  string
}

type service struct{ Name, State string }

type watcher struct {
	Service, Command string
	PID              int
	Acknowledged     uint32
}

// Run verifies. An error is that it could not be tried; a bad verdict is none. A clone that stays held is a
// verdict too: it did not let anything out.
func Run(ctx context.Context, c Config) (Result, error) {
	dir, err := os.MkdirTemp("", "rouse-verify-*")
	if err != nil {
		return Result{}, err
	}
	defer os.RemoveAll(dir)
	list, err := vmm.StartClones(ctx, vmm.CloneConfig{Snapshot: c.Snapshot, N: clones, Capture: dir, Timeout: c.Timeout, Step: c.Step})
	var held *vmm.HeldError
	if errors.As(err, &held) {
		return result([]Check{{"release", Fail, "held: " + strings.Join(held.Problems, "; "), nil}}), nil
	}
	if err != nil {
		return Result{}, err
	}
	defer vmm.CloseAll(list)
	all, err := c.ask(ctx, list)
	if err != nil {
		return Result{}, err
	}
	// The captures are whole when QEMU has ended.
	if err := vmm.CloseAll(list); err != nil {
		return Result{}, err
	}
	silence, err := checkSilence(all)
	if err != nil {
		return Result{}, err
	}
	return result(append(c.compare(all), silence)), nil
}

func result(checks []Check) Result {
	safe := !slices.ContainsFunc(checks, func(k Check) bool { return k.Verdict == Fail })
	return Result{safe, checks}
}

// ask gathers the facts. First answers come first, from all clones: twins that draw from one stream give
// the same value at the same position.
func (c Config) ask(ctx context.Context, list []*vmm.Clone) ([]*facts, error) {
	all := make([]*facts, len(list))
	for i, k := range list {
		f := &facts{clone: k}
		if err := f.interview(ctx); err != nil {
			return nil, fmt.Errorf("clone %d: %w", i, err)
		}
		all[i] = f
	}
	for i, k := range list {
		c.Step(i, "probe ports")
		for _, forward := range k.Forwards {
			all[i].ports = append(all[i].ports, c.probe(ctx, forward))
		}
	}
	if len(all) > 1 {
		c.resumeAcross(ctx, all[0], all[1])
	}
	if c.Exec == nil {
		return all, nil
	}
	for i, k := range list {
		text, err := c.Exec(ctx, i, k.Forwards)
		if err != nil {
			return nil, fmt.Errorf("clone %d: %w", i, err)
		}
		all[i].printed = text
	}
	return all, nil
}

// interview asks the guest itself.
func (f *facts) interview(ctx context.Context) error {
	g, err := f.clone.VM.Control(ctx)
	if err != nil {
		return err
	}
	defer g.Close()
	var name struct {
		Name string `json:"host-name"`
	}
	var nics []struct {
		Name string `json:"name"`
		MAC  string `json:"hardware-address"`
	}
	err = errors.Join(
		g.Do(ctx, "rouse-services", nil, &f.services),
		g.Do(ctx, "rouse-watchers", nil, &f.watchers),
		g.Do(ctx, "guest-get-host-name", nil, &name),
		g.Do(ctx, "guest-network-get-interfaces", nil, &nics))
	if err != nil {
		return err
	}
	f.host = name.Name
	for _, n := range nics {
		if n.MAC != "" && n.MAC != "00:00:00:00:00:00" {
			f.macs = append(f.macs, n.Name+" "+n.MAC)
		}
	}
	f.hooked = hooked(f.clone.Report)
	f.askIdentity(ctx, g)
	return nil
}

// askIdentity asks what no two machines have alike. An older guest does not know the question.
func (f *facts) askIdentity(ctx context.Context, g *control.Client) {
	var id struct {
		BootID    string `json:"boot-id"`
		MachineID string `json:"machine-id"`
		Random    []byte `json:"random"`
	}
	f.own = map[string]string{}
	if g.Do(ctx, "rouse-identity", nil, &id) != nil {
		return
	}
	for name, value := range map[string]string{"boot id": id.BootID, "machine id": id.MachineID, "kernel's random stream": fmt.Sprintf("%x", id.Random)} {
		if value != "" {
			f.own[name] = value
		}
	}
}

// hooked are the services that have an after-restore hook which ended well in this report.
func hooked(report json.RawMessage) []string {
	var names []string
	for _, p := range phases(report) {
		var results []struct{ Service, Error string }
		if p.Name != "hooks" || json.Unmarshal(p.Detail, &results) != nil {
			continue
		}
		for _, r := range results {
			if r.Error == "" {
				names = append(names, r.Service)
			}
		}
	}
	return names
}

type phase struct {
	Name   string          `json:"name"`
	Detail json.RawMessage `json:"detail"`
}

func phases(report json.RawMessage) []phase {
	var r struct {
		Phases []phase `json:"phases"`
	}
	_ = json.Unmarshal(report, &r) // a report without phases has none to look at
	return r.Phases
}

// checkSilence reads what left each clone before its gate opened.
func checkSilence(all []*facts) (Check, error) {
	k := Check{Name: "packets before release", Verdict: Pass, Says: "none left, by a capture outside of the guest"}
	for _, f := range all {
		frames, err := capture.Read(f.clone.Capture)
		if err != nil {
			return k, err
		}
		sooner, err := early(frames, f.clone.Report)
		if errors.Is(err, capture.ErrNoRelease) {
			k.Values = append(k.Values, "no release seen")
			k.Verdict, k.Says = Fail, "the capture shows no announcement of an opened gate, so that nobody can say what left before"
			continue
		}
		if err != nil {
			return k, err
		}
		k.Values = append(k.Values, fmt.Sprint(len(sooner)))
		if len(sooner) > 0 {
			k.Verdict, k.Says = Fail, fmt.Sprintf("frames left before the gate opened (what gate.allow lets through counts too); the first: %v", sooner[0])
		}
	}
	return k, nil
}

func early(frames []capture.Frame, report json.RawMessage) ([]capture.Frame, error) {
	for _, p := range phases(report) {
		var d struct {
			Opened    int64 `json:"opened-ns"`
			Announced int64 `json:"announced-ns"`
		}
		if p.Name != "open" || json.Unmarshal(p.Detail, &d) != nil || d.Opened == 0 {
			continue
		}
		return capture.BeforeRelease(frames, capture.GuestMAC, time.Duration(d.Announced-d.Opened))
	}
	return nil, capture.ErrNoRelease
}
