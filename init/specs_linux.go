package main

import (
	"time"

	"rouse/config"
	"rouse/service"
)

// specs turns the configuration's services into the supervisor's.
func specs(services []config.Service) []service.Spec {
	var list []service.Spec
	for _, s := range services {
		list = append(list, spec(s))
	}
	return list
}

func spec(s config.Service) service.Spec {
	out := service.Spec{Name: s.Name, Exec: s.Exec, Env: s.Env, Dir: s.Dir, User: s.User, Group: s.Group, Groups: s.Groups,
		After: s.After, Oneshot: s.Oneshot,
		Restart: s.Restart, RestartDelay: time.Duration(s.RestartDelay), RestartMax: time.Duration(s.RestartMax),
		StartLimit: s.StartLimit, StartWindow: time.Duration(s.StartWindow),
		Ready:        service.Ready{Kind: s.Ready, Port: s.ReadyPort, URL: s.ReadyURL, Exec: s.ReadyExec},
		ReadyTimeout: time.Duration(s.ReadyTimeout), Watchdog: time.Duration(s.Watchdog),
		Health: service.Health{Check: service.Ready{Kind: s.Health.Check, Port: s.Health.Port, URL: s.Health.URL, Exec: s.Health.Exec},
			Interval: time.Duration(s.Health.Interval), Timeout: time.Duration(s.Health.Timeout), Retries: s.Health.Retries},
		StopTimeout: time.Duration(s.StopTimeout), StopSignal: config.Signal(s.StopSignal),
		Limits: service.Limits{MemoryMax: uint64(s.MemoryMax), MemoryHigh: uint64(s.MemoryHigh), CPUs: float64(s.CPUs), PIDs: s.PIDsMax},
		Confine: service.Confine{Nice: s.Nice, OOMScoreAdj: s.OOMScoreAdj, Capabilities: s.Capabilities,
			NoNewPrivs: s.NoNewPrivs, PrivateTmp: s.PrivateTmp, ReadOnly: s.ReadOnly, Seccomp: s.Seccomp},
		LogFile: service.LogFile{Path: s.LogFile.Path, Size: uint64(s.LogFile.Size), Keep: s.LogFile.Keep},
		FDStore: s.FDStore, Settle: s.Settle,
		BeforeSnapshot: hooks(s.BeforeSnapshot), AfterRestore: hooks(s.AfterRestore), AfterRelease: hooks(s.AfterRelease)}
	if s.OnExit != "none" {
		out.OnExit = s.OnExit
	}
	if s.Ready == "started" {
		out.Ready.Kind = ""
	}
	for _, r := range s.Rlimits {
		out.Confine.Rlimits = append(out.Confine.Rlimits, service.Rlimit(r))
	}
	for _, k := range s.Sockets {
		out.Sockets = append(out.Sockets, service.Socket{Name: k.Name, Listen: k.Listen, Mode: uint32(k.Mode)})
	}
	return out
}

func hooks(list []config.Hook) []service.Hook {
	var out []service.Hook
	for _, h := range list {
		out = append(out, service.Hook{Exec: h.Exec, User: h.User, URL: h.URL, Timeout: time.Duration(h.Timeout)})
	}
	return out
}

// machineHooks are the hooks of the guest as a whole.
func machineHooks(h config.Hooks) service.Spec {
	return service.Spec{BeforeSnapshot: hooks(h.BeforeSnapshot), AfterRestore: hooks(h.AfterRestore), AfterRelease: hooks(h.AfterRelease)}
}
