package main

import (
	"context"
	"errors"
	"time"

	"rouse/config"
	"rouse/firewall"
	"rouse/genid/sysgenid"
	"rouse/internal/fmt"
	"rouse/quiesce"
	"rouse/quiesce/sockdiag"
	"rouse/rootfs"
	"rouse/service"
)

// The adapters between the flow's interfaces and the packages that do the work.

func (g *guest) parts() quiesce.Parts {
	return quiesce.Parts{
		Gate:        gatePart{g},
		Queues:      queuePart{g},
		Services:    servicePart{g},
		Filesystems: newFilesystems(g),
		Generation:  generationPart{g},
		Kernel:      kernelPart{g},
		Network:     networkPart{},
	}
}

// slowLook is a quarter of a second: a look wakes PID 1 and costs up to a quarter of a millisecond, so
// that ten a second would be more than a thousandth of a processor. Where the kernel itself tells of a
// clone, looking is only for what it might miss.
func slowLook(prompt bool) time.Duration {
	if prompt {
		return time.Second
	}
	return 250 * time.Millisecond
}

func flowOptions(cfg config.Config, log func(string, ...any)) quiesce.Options {
	return quiesce.Options{
		SlowLook:       time.Minute, // the sources look by themselves and hint: see genid.Sources.Watch
		HooksTimeout:   hooksBudget(cfg),
		DrainTimeout:   time.Duration(cfg.Quiesce.Timeout),
		SettleTimeout:  time.Duration(cfg.Quiesce.SettleTimeout),
		FreezeTimeout:  time.Duration(cfg.Quiesce.FreezeTimeout),
		SyncTimeout:    30 * time.Second,
		AdjustTimeout:  30 * time.Second, // milliseconds of work, but the host may be overcommitted or paused
		WatcherTimeout: time.Duration(cfg.Adjust.Timeout),
		Watchdog:       time.Duration(cfg.Quiesce.Watchdog),
		Leftovers:      quiesce.Policy(cfg.Quiesce.Leftovers),
		Late:           quiesce.Policy(cfg.Adjust.Late),
		Log:            log,
		Faults:         pageFaults,
	}
}

// hooksBudget is what all hooks of one kind may take together: the sum of their own budgets, and a
// little for starting them.
func hooksBudget(cfg config.Config) time.Duration {
	lists := [3][][]config.Hook{{cfg.Hooks.BeforeSnapshot}, {cfg.Hooks.AfterRestore}, {cfg.Hooks.AfterRelease}}
	for _, s := range cfg.Services {
		for i, list := range [...][]config.Hook{s.BeforeSnapshot, s.AfterRestore, s.AfterRelease} {
			lists[i] = append(lists[i], list)
		}
	}
	var most time.Duration
	for _, kind := range lists {
		// Those of hookDir are not known here; one of them may take its time.
		budget := 5*time.Second + service.DefaultHookTimeout
		for _, list := range kind {
			for _, h := range list {
				budget += time.Duration(h.Timeout)
			}
		}
		most = max(most, budget)
	}
	return most
}

// quiesceBudget bounds a whole quiesce; every phase ends well before.
func quiesceBudget(cfg config.Config) time.Duration {
	return hooksBudget(cfg) + 2*time.Duration(cfg.Quiesce.Timeout) + 2*time.Minute
}

// gatePart is the gate. While it is not open, no service is restarted: PID 1 must not fork in a machine
// that is about to be, or has just been, copied.
type gatePart struct{ g *guest }

func (p gatePart) Set(to quiesce.GateState) error {
	if p.g.gate == nil {
		return fmt.Errorf("gate: %w", p.g.gateErr)
	}
	if to != quiesce.GateOpen {
		p.g.services.HoldRestarts()
		p.g.leases.Hold()
	}
	state, err := firewall.ParseState(string(to))
	if err != nil {
		return err
	}
	err = p.g.gate.Set(state)
	if errors.Is(err, firewall.ErrNoHold) {
		// The drain then sees new flows too and may take longer; what follows is shut, which every mechanism knows.
		p.g.flow.Warn(err.Error() + ": new flows go on until it is shut")
		return nil
	}
	if err == nil && to == quiesce.GateOpen {
		p.g.services.ReleaseRestarts()
		p.g.leases.Release()
	}
	return err
}

// queuePart is what sockets hold.
type queuePart struct{ g *guest }

func (p queuePart) Busy(ctx context.Context) ([]quiesce.Leftover, error) {
	sockets, err := p.g.queues.Busy(ctx)
	if err != nil || len(sockets) == 0 {
		return nil, err
	}
	list := make([]quiesce.Leftover, len(sockets))
	for i := range sockets {
		list[i] = p.leftover(&sockets[i])
	}
	return list, nil
}

func (p queuePart) leftover(s *sockdiag.Socket) quiesce.Leftover {
	l := quiesce.Leftover{Protocol: s.Protocol, State: s.State, Local: s.Local, Remote: s.Remote, Unread: s.Unread,
		Unsent: s.Unsent, PID: s.PID, Command: s.Comm, Reason: s.Reason, Handle: s}
	if !s.Since.IsZero() {
		l.AgeMS = time.Since(s.Since).Milliseconds()
	}
	if s.PID != 0 {
		l.Service = p.g.services.ServiceOf(s.PID)
	}
	return l
}

func (p queuePart) Barrier() error { return p.g.queues.Barrier() }

func (p queuePart) Destroy(ctx context.Context, leftovers []quiesce.Leftover) ([]quiesce.Leftover, error) {
	sockets := make([]sockdiag.Socket, len(leftovers))
	byCookie := map[uint64]quiesce.Leftover{}
	for i, l := range leftovers {
		sockets[i] = *l.Handle.(*sockdiag.Socket)
		byCookie[sockets[i].Cookie] = l
	}
	left, err := p.g.queues.Destroy(ctx, sockets)
	var still []quiesce.Leftover
	for i := range left {
		l, ok := byCookie[left[i].Cookie]
		if !ok || left[i].Cookie == 0 {
			l = p.leftover(&left[i])
		}
		l.Reason = left[i].Reason
		still = append(still, l)
	}
	return still, err
}

func (p queuePart) Sever(ctx context.Context) (int, error) {
	inherited, err := p.g.queues.Inherited(ctx)
	if err != nil {
		return 0, err
	}
	left, err := p.g.queues.Destroy(ctx, inherited)
	if err != nil {
		return 0, err
	}
	if len(left) > 0 {
		return 0, fmt.Errorf("%d inherited connections could not be destroyed, the first: %s", len(left), left[0])
	}
	return len(inherited), p.flush()
}

// flush forgets conntrack entries and neighbours. A kernel that cannot list its conntrack entries keeps
// records of connections whose sockets are gone: nothing can leave through them, and they time out.
func (p queuePart) flush() error {
	unsupported, err := p.g.queues.FlushAll()
	if unsupported != nil {
		p.g.flow.Warn("sever: " + unsupported.Error())
	}
	return err
}

// servicePart is the supervisor.
type servicePart struct{ g *guest }

func (p servicePart) hooks(ctx context.Context, when string) (any, error) {
	results, err := p.g.services.Hooks(ctx, when)
	if len(results) == 0 {
		return nil, err
	}
	return results, err
}

func (p servicePart) BeforeSnapshot(ctx context.Context) (any, error) {
	return p.hooks(ctx, service.BeforeSnapshot)
}

func (p servicePart) AfterRestore(ctx context.Context) (any, error) {
	return p.hooks(ctx, service.AfterRestore)
}

func (p servicePart) Aborted(ctx context.Context) (any, error) {
	return p.hooks(ctx, service.SnapshotAborted)
}

func (p servicePart) Released(ctx context.Context) (any, error) {
	return p.hooks(ctx, service.SnapshotReleased)
}

func (p servicePart) Resting() (bool, error)           { return p.g.services.Resting() }
func (p servicePart) Settle(ctx context.Context) error { return p.g.services.Settle(ctx) }
func (p servicePart) Freeze(ctx context.Context) error { return p.g.services.Freeze(ctx) }
func (p servicePart) Thaw(ctx context.Context) error   { return p.g.services.Thaw(ctx) }

func (p servicePart) RestartOwners(ctx context.Context, late []quiesce.Watcher) error {
	done := map[string]bool{}
	for _, w := range late {
		if w.Service == "" {
			return fmt.Errorf("watcher %s[%d] belongs to no service", w.Command, w.PID)
		}
		if done[w.Service] {
			continue
		}
		done[w.Service] = true
		if err := p.g.services.Restart(ctx, w.Service); err != nil {
			return err
		}
	}
	return nil
}

// generationPart is the sources and the device.
type generationPart struct{ g *guest }

func (p generationPart) ID() string              { return p.g.sources.ID() }
func (p generationPart) Events() <-chan struct{} { return p.g.sources.Events() }

func (p generationPart) Bump() (uint32, error) {
	return p.g.sources.Bump(func() (uint32, error) { return p.g.device.Bump(0) })
}

func (p generationPart) Counter() uint32 { return p.g.device.Generation() }

func (p generationPart) Wait(ctx context.Context) error { return p.g.device.Wait(ctx) }

func (p generationPart) Outdated() []quiesce.Watcher {
	var list []quiesce.Watcher
	for _, w := range p.g.device.Outdated() {
		list = append(list, p.g.watcher(w))
	}
	return list
}

func (g *guest) watcher(w sysgenid.Watcher) quiesce.Watcher {
	q := quiesce.Watcher{ID: w.ID, PID: w.PID, Command: w.Comm, Acknowledged: w.Acknowledged, Service: g.services.ServiceOf(w.PID)}
	if !w.OutdatedSince.IsZero() {
		q.LateMS = time.Since(w.OutdatedSince).Milliseconds()
	}
	return q
}

type networkPart struct{}

func (networkPart) AwaitLinks() error { return rootfs.AwaitLinks() }
func (networkPart) Announce() error   { return rootfs.Announce() }
