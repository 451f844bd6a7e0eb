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
	"strings"
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
		{"gate", "the gate", goBench("./firewall", "Switch|Packet|Shut", 3)},
		{"sockets", "sockets", goBench("./quiesce/sockdiag", "Busy|Destroy|Wait", 3)},
		{"fanout", "generation fan-out", goBench("./genid/sysgenid", "Fanout", 3)},
		{"e2e", "boot and resume to the first answer", endToEnd},
		{"memory", "snapshot size and page faults", memory},
		{"clones", "many clones", cloneGrowth},
		{"idle", "idle cost", idle},
		{"bus", "fan-out beside D-Bus", overBus},
		{"floor", "beside bare system calls", floor},
		{"freezer", "freezer", goBench("./service", "Freeze|Thaw", 3)},
	}
}

// lab is what suites share.
type lab struct {
	out, dir string // built things that stay, and a temporary folder
	kernel   string // folder of a kernel
	probe    string // the probe of probe/probe.c
	quick    bool
}

func (l *lab) bin(name string) string { return filepath.Join(l.out, name) }

// repeat is how often to measure: n times, or once if only to see that it works.
func (l *lab) repeat(n int) int {
	if l.quick {
		return 1
	}
	return n
}

func main() {
	if len(os.Args) == 5 && os.Args[1] == floorArg {
		exitWith(floorMain(os.Args[2:]))
	}
	var l lab
	only := flag.String("only", "", "suites to run, separated by commas; empty is all")
	docs := flag.String("docs", "docs", "folder of performance.md and performance/")
	series := flag.String("kernel", "6.12", "kernel series of out/kernels")
	flag.StringVar(&l.out, "out", "out", "folder with init, kernels and peers")
	flag.BoolVar(&l.quick, "quick", false, "few repetitions, and keep no data: see that all of it works")
	render := flag.Bool("render", false, "only write the manual from the data that is there")
	flag.Parse()
	l.kernel = filepath.Join(l.out, "kernels", *series)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
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
		if err := l.buildProbe(ctx); err != nil {
			return err
		}
		for _, s := range suites() {
			if only != "" && !strings.Contains(","+only+",", ","+s.name+",") {
				continue
			}
			if err := l.measure(ctx, s, data); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	if l.quick {
		return nil
	}
	return writeManual(docs)
}

func (l *lab) measure(ctx context.Context, s suite, data string) error {
	fmt.Println("bench:", s.title)
	r := &Record{Suite: s.name, When: time.Now().UTC().Truncate(time.Second), Machine: machine(), Quick: l.quick}
	if err := s.run(ctx, l, r); err != nil {
		return err
	}
	for i := range r.Rows {
		row := &r.Rows[i]
		fmt.Printf("  %-20s %6d %-12s %12.4g %s\n", row.Case, row.N, row.Metric, row.median(), row.Unit)
	}
	if l.quick {
		return nil
	}
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
