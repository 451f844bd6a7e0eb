// Command bench measures rouse beside what people use today, on this machine and in one run, and writes
// the tables and plots of docs/performance.md from the data that it keeps beside them.
//
// The easy case is `make bench`. Everything compared is interleaved: machines are shared and noisy, so a
// figure stands for itself only beside another of the same run. Nothing here passes or fails by a time.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// suite is one comparison.
type suite struct {
	name, title string
	run         func(context.Context, *lab, *Record) error
}

// suites are in the order of the manual.
func suites() []suite {
	return []suite{
		{"init", "PID 1", first},
		{"gate", "the gate", goBench("./firewall", "Switch|Packet|Shut", "", 3)},
		{"sockets", "looking at sockets and destroying them", sockets},
		{"namespaces", "network namespaces", namespaces},
		{"fanout", "generation fan-out", goBench("./genid/sysgenid", "Fanout/^(read|poll)$", "Fanout/^(read|poll)$/^1(00)?$", 3)},
		{"e2e", "boot and resume to the first answer", endToEnd},
		{"memory", "snapshot size and page faults", memory},
		{"clones", "many clones", cloneGrowth},
		{"idle", "idle cost", idle},
		{"bus", "fan-out beside D-Bus", overBus},
		{"floor", "beside bare system calls", floor},
		{"freeze", "freezing services and file systems, beside qemu-ga and systemd", freezes},
		{"freezer", "freezer", goBench("./service", "Freeze|Thaw|Settle", "", 3)},
	}
}

// lab is what suites share.
type lab struct {
	out, dir string // built things that stay, and a temporary folder
	kernel   string // folder of a kernel
	probe    string // the probe of probe/probe.c
	quick    bool
	baked    *web // what bakedWeb has made
}

func (l *lab) bin(name string) string { return filepath.Join(l.out, name) }

// repeat is how often to measure: n times, or once if only to see that it works.
func (l *lab) repeat(n int) int {
	if l.quick {
		return 1
	}
	return n
}

// workers are what this program is when a suite starts it again, by its first argument.
var workers = map[string]func(args []string) error{
	floorArg:   floorMain,
	freezeArg:  freezeMain,
	socketsArg: socketWorker,
	crowdArg:   socketCrowdMain,
	spacesArg:  spaceWorker,
	watchArg:   watchMain,
}

func main() {
	if len(os.Args) > 1 && workers[os.Args[1]] != nil {
		exitWith(workers[os.Args[1]](os.Args[2:]))
	}
	var l lab
	only := flag.String("only", "", "suites to run, separated by commas; empty is all")
	docs := flag.String("docs", "docs", "folder of performance.md and performance/")
	series := flag.String("kernel", "6.12", "kernel series of out/kernels")
	flag.StringVar(&l.out, "out", "out", "folder with init, kernels and peers")
	flag.BoolVar(&l.quick, "quick", false, "few repetitions, and keep no data: see that all of it works and can be shown")
	render := flag.Bool("render", false, "only write the manual from the data that is there")
	flag.Parse()
	l.kernel = filepath.Join(l.out, "kernels", *series)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	exitWith(run(ctx, &l, *only, *docs, *render))
}

func exitWith(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func run(ctx context.Context, l *lab, only, docs string, render bool) (err error) {
	data := filepath.Join(docs, "performance")
	if !render {
		if l.dir, err = os.MkdirTemp("", "rouse-bench-*"); err != nil {
			return err
		}
		defer os.RemoveAll(l.dir)
		if l.quick { // what is kept is not to be written over
			docs = filepath.Join(l.dir, "docs")
			data = filepath.Join(docs, "performance")
		}
		if err := l.buildProbe(ctx); err != nil {
			return err
		}
		chosen, err := choose(only)
		if err != nil {
			return err
		}
		for _, s := range chosen {
			if err := l.measure(ctx, s, data); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	return writeManual(docs)
}

// choose is the suites that are named, separated by commas; all if none is.
func choose(only string) (list []suite, err error) {
	names := strings.FieldsFunc(only, func(c rune) bool { return c == ',' })
	for _, s := range suites() {
		if i := slices.Index(names, s.name); len(only) == 0 || i >= 0 {
			list = append(list, s)
			names = slices.DeleteFunc(names, func(n string) bool { return n == s.name })
		}
	}
	if len(names) > 0 {
		return nil, fmt.Errorf("no suite is called %s", strings.Join(names, ", "))
	}
	return list, nil
}

func (l *lab) measure(ctx context.Context, s suite, data string) error {
	fmt.Println("bench:", s.title)
	r := &Record{Suite: s.name, When: time.Now().UTC().Truncate(time.Second), Machine: machine(), Quick: l.quick}
	began := time.Now()
	if err := s.run(ctx, l, r); err != nil {
		return err
	}
	for i := range r.Rows {
		row := &r.Rows[i]
		fmt.Printf("  %-20s %6d %-12s %12.4g %s\n", row.Case, row.N, row.Metric, row.median(), row.Unit)
	}
	for _, text := range r.LeftOut {
		fmt.Println("  left out:", text)
	}
	fmt.Printf("  %s took %.0f s\n", s.name, time.Since(began).Seconds())
	return r.save(data)
}

func (l *lab) buildProbe(ctx context.Context) error {
	l.probe = filepath.Join(l.dir, "probe")
	out, err := exec.CommandContext(ctx, "gcc", "-O2", "-static", "-Wall", "-o", l.probe, "bench/probe/probe.c").CombinedOutput()
	if err != nil {
		return fmt.Errorf("gcc probe.c: %w\n%s", err, out)
	}
	return nil
}

// machine says in a line what the figures are from.
func machine() string {
	model := runtime.GOARCH
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%d x %s", runtime.NumCPU(), model)
}
