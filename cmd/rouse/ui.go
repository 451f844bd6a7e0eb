package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// ui tells people what is going on: bars on a terminal, a line a step elsewhere, nothing with --json.
type ui struct {
	w     io.Writer
	quiet bool
	bars  *mpb.Progress // nil off a terminal
	began time.Time

	mu    sync.Mutex
	tasks map[string]*task
}

// task is one thing that goes through steps: an image, or one clone.
type task struct {
	bar  *mpb.Bar
	step string
}

func newUI(w io.Writer, quiet bool) *ui {
	u := &ui{w: w, quiet: quiet, began: time.Now(), tasks: map[string]*task{}}
	if f, ok := w.(*os.File); ok && !quiet && isTerminal(f) {
		u.bars = mpb.New(mpb.WithOutput(w), mpb.WithWidth(24))
	}
	return u
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
}

// step says that a task, which will have so many steps, does something now; "" says that it is done.
func (u *ui) step(name, step string, steps int) {
	if u.quiet {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.bars == nil {
		if step != "" {
			fmt.Fprintf(u.w, "%6.1fs  %s: %s\n", time.Since(u.began).Seconds(), name, step)
		}
		return
	}
	t := u.tasks[name]
	if t == nil {
		t = &task{}
		t.bar = u.bars.AddBar(int64(steps), mpb.PrependDecorators(decor.Name(name, decor.WCSyncSpaceR)),
			mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return u.current(t) }), decor.Elapsed(decor.ET_STYLE_GO, decor.WCSyncSpace)))
		u.tasks[name] = t
	} else {
		t.bar.Increment()
	}
	t.step = step
	if step == "" {
		t.step = "done"
		t.bar.SetTotal(-1, true)
	}
}

// current is read by the goroutine that draws.
func (u *ui) current(t *task) string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return t.step
}

// close ends the bars; afterwards plain lines may be written.
func (u *ui) close() {
	if u.bars == nil {
		return
	}
	u.mu.Lock()
	for _, t := range u.tasks {
		t.bar.Abort(false)
	}
	u.mu.Unlock()
	u.bars.Wait()
	u.bars = nil
}

// emit prints one JSON object on standard output if that was asked for, or the text for people.
func (s *session) emit(v any, text string) error {
	if s.json {
		return json.NewEncoder(s.out).Encode(v)
	}
	_, err := fmt.Fprintln(s.out, text)
	return err
}
