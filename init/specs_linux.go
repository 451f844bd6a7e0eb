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
		spec := service.Spec{Name: s.Name, Exec: s.Exec, Env: s.Env, Dir: s.Dir, User: s.User, Group: s.Group,
			After: s.After, Oneshot: s.Oneshot, Restart: s.Restart, RestartDelay: time.Duration(s.RestartDelay),
			ReadyTimeout: time.Duration(s.ReadyTimeout), StopTimeout: time.Duration(s.StopTimeout),
			StopSignal: config.Signal(s.StopSignal), Settle: s.Settle,
			BeforeSnapshot: hooks(s.BeforeSnapshot), AfterRestore: hooks(s.AfterRestore)}
		if s.Ready != "started" {
			spec.Ready = service.Ready{Kind: s.Ready, Port: s.ReadyPort}
		}
		list = append(list, spec)
	}
	return list
}

func hooks(list []config.Hook) []service.Hook {
	var out []service.Hook
	for _, h := range list {
		out = append(out, service.Hook{Exec: h.Exec, Timeout: time.Duration(h.Timeout)})
	}
	return out
}
