package main

import (
	"context"
	"fmt"
)

// idle counts what PID 1 costs over a minute in which nothing happens, in a guest with one resting service.
func idle(ctx context.Context, l *lab, r *Record) error {
	seconds := 60
	if l.quick {
		seconds = 3
	}
	for _, name := range []string{"rouse", "busybox init", "systemd"} {
		for _, p := range peers() {
			if p.name != name {
				continue
			}
			img, err := l.image(p, 0)
			if err != nil {
				return err
			}
			if err := l.boot(ctx, r, p, img, 0, fmt.Sprintf("probe.idle=%d", seconds)); err != nil {
				return err
			}
		}
	}
	return nil
}
