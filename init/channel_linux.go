package main

import (
	"context"
	"os"
	"path/filepath"

	"rouse/config"
	"rouse/control"
	"rouse/internal/guard"
)

// channel opens the control channel and returns what serves it. The socket is there at once: a service may ask
// as soon as it is started, and waits for the answer. A transport that is missing is a problem to be told on the others.
func (g *guest) channel() (listen func(context.Context)) {
	server := control.NewServer(hostView{g}, control.ServerOptions{Version: version, Log: g.log.printf,
		QuiesceTimeout: quiesceBudget(g.cfg), Exec: g.exec()})
	c := &g.cfg.Control
	if err := os.MkdirAll(filepath.Dir(c.Socket), 0o755); err != nil {
		g.problem("control: %v", err)
	}
	socket, err := server.ListenUnix(c.Socket)
	if err != nil {
		g.problem("control: %v", err)
	}
	g.linkSocket(c.Socket)
	return func(ctx context.Context) {
		serve := func(name string, f func() error) {
			go guard.Do(func() {
				if err := f(); err != nil && ctx.Err() == nil {
					g.problem("control by %s: %v", name, err)
				}
			})
		}
		if c.Serial != "" {
			serve("virtio-serial", func() error { return server.ServeSerial(ctx, g.serialPath()) })
		}
		if c.Vsock != 0 {
			serve("vsock", func() error { return server.ServeVsock(ctx, c.Vsock) })
		}
		if socket != nil {
			serve("unix socket", func() error { return socket(ctx) })
		}
	}
}

// linkSocket makes a link where rousectl looks if it is told of no other place: it cannot read all sources of a
// configuration.
func (g *guest) linkSocket(path string) {
	usual := config.Default().Control.Socket
	if path == usual {
		return
	}
	_ = os.Remove(usual)
	if err := os.Symlink(path, usual); err != nil {
		g.problem("control: %v", err)
	}
}

// tell sends a state to who started the guest, if it wants to be told.
func (g *guest) tell(state string) {
	to := g.cfg.Control.Notify
	if to == "" {
		return
	}
	if err := control.Notify(to, state); err != nil {
		g.problem("notify: %v", err)
	}
}

// exec is what serves guest-exec, nil unless the configuration lets the host run programs here.
func (g *guest) exec() func(control.ExecRequest) (*control.Execution, error) {
	if !g.cfg.Control.Exec {
		return nil
	}
	return hostView{g}.Exec
}

// serialPath is the port of the configured name; "" lets the server look for the usual one again and again.
func (g *guest) serialPath() string {
	if g.cfg.Control.Serial == control.PortName {
		return ""
	}
	path, err := control.FindSerial(g.cfg.Control.Serial)
	if err != nil {
		g.problem("control: %v", err)
	}
	return path
}
