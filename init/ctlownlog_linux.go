package main

import (
	"context"
	"time"

	"rouse/control"
)

// ownLogLook is how often a follower of rouse's own lines looks for more: few lines come, and nothing runs for
// followers while there are none.
const ownLogLook = 200 * time.Millisecond

// ownLog is LogSince for the lines of rouse itself.
func (g *guest) ownLog(ctx context.Context, after uint64, most int) ([]control.LogLine, uint64, error) {
	for {
		lines, count := g.log.numbered()
		if kept := count - uint64(len(lines)); after < kept {
			after = kept // what was before is lost
		}
		var list []control.LogLine
		for after < count && len(list) < most {
			list = append(list, control.LogLine{Seq: after + 1, Text: lines[len(lines)-int(count-after)]})
			after++
		}
		if len(list) > 0 {
			return list, after, nil
		}
		select {
		case <-time.After(ownLogLook):
		case <-ctx.Done():
			return nil, min(after, count), ctx.Err()
		}
	}
}

// numbered returns the lines that are kept, and the number of the last.
func (l *logger) numbered() ([]string, uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.lines...), l.count
}
