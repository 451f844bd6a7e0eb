// Command demo shows what cloning does to a server, and what rouse does about it: `make demo` runs it.
//
// It clones twice. First a server under a plain init: its clones answer with the same "random" values.
// Then the same server, tracking /dev/sysgenid, under rouse: baked while one client is in the middle of
// a transfer and others keep idle connections open, then cloned. What every clone sent before it was
// released is counted in a capture that QEMU makes outside of the guest. The demo fails if a safe clone
// repeats anything, speaks too early or opens before its watcher acknowledged, and also if the unsafe
// ones do not repeat: then it would prove nothing.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	var d demo
	flag.StringVar(&d.bin, "bin", "out", "`folder` with init, webserver, webserver-unsafe and plaininit")
	flag.StringVar(&d.kernel, "kernel", "out/kernels/6.1", "`folder` with vmlinuz and modules, as fetch-kernels.sh leaves it")
	flag.IntVar(&d.clones, "n", 3, "how many clones")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	if err := d.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "\ndemo: FAILED:", err)
		os.Exit(1)
	}
}

type demo struct {
	bin, kernel string
	clones      int
	dir         string // for images and snapshots, removed at the end
}

// result is the line of JSON at the end.
type result struct {
	Unsafe   []clone  `json:"unsafe"`
	Safe     []clone  `json:"safe"`
	Transfer transfer `json:"transfer"`
	Quiesce  any      `json:"quiesce"`
	Accel    string   `json:"accelerator"`
	OK       bool     `json:"ok"`
}

// clone is a row of the table.
type clone struct {
	VMGenID    string  `json:"vmgenid"`
	Generation uint32  `json:"generation"`
	RestoreMS  float64 `json:"restore-ms"`
	ReadyMS    float64 `json:"ready-ms"`
	Random     string  `json:"first-random"`
	TicketKey  string  `json:"ticket-key"`
	Requests   int     `json:"requests"`
	Early      int     `json:"packets-before-release"`
	EarlyIP    int     `json:"ip-packets-before-release"`
	Severed    int     `json:"severed"`
	// Acknowledged is the generation that the server says it has adjusted to.
	Acknowledged uint32 `json:"acknowledged"`
}

func (d *demo) run(ctx context.Context) (err error) {
	if d.dir, err = os.MkdirTemp("", "rouse-demo-*"); err != nil {
		return err
	}
	defer os.RemoveAll(d.dir)
	var r result
	fmt.Println("1. A server under a plain init, snapshotted and cloned as it is")
	if r.Unsafe, err = d.unsafe(ctx); err != nil {
		return fmt.Errorf("unsafe run: %w", err)
	}
	printUnsafe(r.Unsafe)
	fmt.Println("\n2. The same server under rouse: quiesced, snapshotted, cloned, adjusted")
	if err = d.safe(ctx, &r); err != nil {
		return fmt.Errorf("safe run: %w", err)
	}
	printSafe(r.Safe)
	verdict := errors.Join(judgeUnsafe(r.Unsafe), judgeSafe(r.Safe))
	r.OK = verdict == nil
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	fmt.Printf("\n%s\n", line)
	return verdict
}

func (d *demo) path(name string) string { return filepath.Join(d.dir, name) }

// judgeUnsafe wants the fault to show.
func judgeUnsafe(clones []clone) error {
	for _, c := range clones[1:] {
		if c.Random != clones[0].Random || c.TicketKey != clones[0].TicketKey {
			return errors.New("the unsafe clones do not repeat each other: the comparison proves nothing")
		}
	}
	return nil
}

// judgeSafe wants nothing to repeat, nothing to be early, and every watcher to have been waited for.
func judgeSafe(clones []clone) error {
	var errs []error
	seen := map[string]int{}
	for i, c := range clones {
		for _, value := range []string{c.VMGenID, c.Random, c.TicketKey} {
			if j, ok := seen[value]; ok {
				errs = append(errs, fmt.Errorf("clones %d and %d share %s", j, i, value))
			}
			seen[value] = i
		}
		if c.Early > 0 {
			errs = append(errs, fmt.Errorf("clone %d sent %d packets before its release, %d of them IP", i, c.Early, c.EarlyIP))
		}
		if c.Acknowledged != c.Generation {
			errs = append(errs, fmt.Errorf("clone %d was released in generation %d, its server had acknowledged %d", i, c.Generation, c.Acknowledged))
		}
		if c.Severed == 0 {
			errs = append(errs, fmt.Errorf("clone %d severed no connection, although clients had some open", i))
		}
	}
	return errors.Join(errs...)
}
