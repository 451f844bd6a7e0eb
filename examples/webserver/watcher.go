//go:build !nowatcher

package main

import (
	"context"
	"log"
	"time"

	"rouse/genid/sysgenid"
)

// watch makes the server a tracked watcher: from now on, after a resume nothing leaves the machine until
// it has adjusted and said so.
func watch(s *server, device string, mute bool) error {
	c, err := sysgenid.Open(device)
	if err != nil {
		return err
	}
	if err := c.Track(true); err != nil {
		return err
	}
	if mute {
		return nil
	}
	go func() {
		for {
			generation, err := c.Wait(context.Background())
			if err == nil {
				err = s.reseed(generation)
			}
			if err == nil {
				err = c.Ack(generation)
			}
			if err != nil {
				// The gate stays shut meanwhile; a moment later it may work.
				log.Printf("generation %d: %v", generation, err)
				time.Sleep(100 * time.Millisecond)
			}
		}
	}()
	return nil
}
