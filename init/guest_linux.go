package main

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"rouse/config"
	"rouse/control"
	"rouse/internal/fmt"
	"rouse/internal/json"
	"rouse/quiesce"
	"rouse/rootfs/rtnl"
	"rouse/service"
)

// problems gathers what is degraded, for the status.
type problems struct {
	mu   sync.Mutex
	list []string
}

func (p *problems) add(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = append(p.list, fmt.Sprintf(format, args...))
}

func (p *problems) all() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.list...)
}

// hostView is the guest as the control channel sees it.
type hostView struct{ g *guest }

func (h hostView) Quiesce(ctx context.Context, o control.QuiesceOptions) (json.RawMessage, int, error) {
	if remoteRuns() {
		return nil, 0, errRemote
	}
	r, err := h.g.flow.Quiesce(ctx, quiesce.QuiesceOptions{Timeout: o.Timeout, Leftovers: quiesce.Policy(o.Leftovers)})
	return encode(r), r.Filesystems, refused(err)
}

func (h hostView) Release(ctx context.Context) (json.RawMessage, error) {
	r, err := h.g.flow.Release(ctx)
	return encode(r), refused(err)
}

// refused marks errors that changed nothing, for clients that may try again.
func refused(err error) error {
	if errors.Is(err, quiesce.ErrBusy) {
		return fmt.Errorf("%w: %w", control.ErrRefused, err)
	}
	return err
}

func (h hostView) Resumed(_ context.Context, r control.Resume) error {
	return h.g.flow.Resumed(quiesce.Resume{Seed: r.Seed, TimeNS: r.TimeNS, Identity: r.Identity, Generation: r.Generation})
}

// WaitFor also waits while a new generation has shown itself and the flow has not yet begun with it: a
// clone that still looks as it did before the snapshot is not ready.
func (h hostView) WaitFor(ctx context.Context, states []string) error {
	state, err := h.g.flow.WaitFor(ctx, func(s quiesce.State) bool { return slices.Contains(states, string(s)) })
	if err != nil {
		return fmt.Errorf("still %s: %w", state, err)
	}
	return nil
}

func (h hostView) Status() control.Status {
	g := h.g
	s := control.Status{
		State: string(g.flow.State()), Generation: g.device.Generation(), Gate: "none", Mechanism: g.mechanism(),
		Source: "host", SysGenID: g.deviceMode, Outdated: len(g.device.Outdated()), Version: version,
		UptimeMS: time.Since(g.log.began).Milliseconds(), Problems: g.problems.all(),
	}
	if name := g.sources.Primary(); name != "" {
		s.VMGenID, s.Source = g.sources.ID(), name
	}
	if g.gate != nil {
		state, err := g.gate.State()
		s.Gate = state.String()
		if err != nil {
			s.Problems = append(s.Problems, "gate: "+err.Error())
		}
	}
	for _, w := range g.device.Watchers() {
		if w.Tracked {
			s.Watchers++
		}
	}
	if reason := g.flow.Reason(); reason != "" {
		s.Problems = append(s.Problems, "held: "+reason)
	}
	return s
}

func (h hostView) Reports() []json.RawMessage {
	var list []json.RawMessage
	for _, r := range h.g.flow.Reports() {
		list = append(list, encode(r))
	}
	return list
}

func (h hostView) Services() any { return h.g.services.Status() }

func (h hostView) Service(ctx context.Context, name, action, signal string) (any, error) {
	if err := h.act(ctx, name, action, signal); err != nil {
		if errors.Is(err, service.ErrHeld) {
			err = fmt.Errorf("%w: %w", control.ErrRefused, err)
		}
		return nil, err
	}
	for _, s := range h.g.services.Status() {
		if s.Name == name {
			return s, nil
		}
	}
	return nil, nil
}

func (h hostView) act(ctx context.Context, name, action, signal string) error {
	switch action {
	case "start":
		return h.g.services.StartService(ctx, name)
	case "stop":
		return h.g.services.StopService(ctx, name)
	case "restart":
		return h.g.services.Restart(ctx, name)
	}
	number := config.Signal(signal)
	if n, err := strconv.Atoi(signal); err == nil {
		number = syscall.Signal(n)
	}
	if number <= 0 || number > 64 {
		return fmt.Errorf("signal %q: unknown; give a name such as HUP, or a number", signal)
	}
	return h.g.services.Signal(name, number)
}

func (h hostView) Watchers() any {
	list := []quiesce.Watcher{}
	for _, w := range h.g.device.Watchers() {
		if w.Tracked {
			list = append(list, h.g.watcher(w))
		}
	}
	return list
}

func (h hostView) Interfaces() ([]control.Interface, error) {
	c, err := rtnl.Dial(0)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	links, err := c.Links()
	if err != nil {
		return nil, err
	}
	addresses, err := c.Addresses(0)
	if err != nil {
		return nil, err
	}
	list := make([]control.Interface, len(links))
	for i, l := range links {
		list[i].Name = l.Name
		if len(l.MAC) > 0 {
			list[i].MAC = fmt.Sprintf("% x", l.MAC)
			list[i].MAC = strings.ReplaceAll(list[i].MAC, " ", ":")
		}
		for _, a := range addresses {
			if a.Index == l.Index {
				list[i].Addresses = append(list[i].Addresses, address(a.Prefix))
			}
		}
	}
	return list, nil
}

func address(p netip.Prefix) control.InterfaceAddress {
	kind := "ipv6"
	if p.Addr().Is4() {
		kind = "ipv4"
	}
	return control.InterfaceAddress{Type: kind, Address: p.Addr().String(), Prefix: p.Bits()}
}

func (h hostView) Log(name string, lines int) []string {
	if name == "" {
		return h.g.log.last(lines)
	}
	var list []string
	for _, line := range h.g.services.Log(name, lines) {
		list = append(list, string(line))
	}
	return list
}

func (h hostView) LogSince(ctx context.Context, name string, after uint64, most int) ([]control.LogLine, uint64, error) {
	if name == "" {
		return h.g.ownLog(ctx, after, most)
	}
	lines, next, err := h.g.services.LogSince(ctx, name, after, most)
	list := make([]control.LogLine, len(lines))
	for i, l := range lines {
		list[i] = control.LogLine(l)
	}
	return list, next, err
}

func (h hostView) Config() any { return h.g.configView() }

func (h hostView) Frozen() bool {
	switch h.g.flow.State() {
	case quiesce.Quiescing, quiesce.Quiesced, quiesce.Thawing:
		return true
	}
	return false
}

// Shutdown begins the end of the machine and returns, so that the host gets its answer.
func (h hostView) Shutdown(mode string) error {
	switch mode {
	case "powerdown":
		mode = "poweroff"
	case "reboot", "halt":
	default:
		return fmt.Errorf("shutdown %q: unknown; use powerdown, reboot or halt", mode)
	}
	if !h.g.exit(ending{mode: mode}) {
		return fmt.Errorf("shutdown: %w: already on the way", control.ErrRefused)
	}
	return nil
}

// encode writes a report. One that cannot be written would be a mistake in its type.
func encode(v any) json.RawMessage {
	text, err := json.Marshal(v)
	if err != nil {
		text, _ = json.Marshal(map[string]string{"error": err.Error()})
	}
	return text
}
