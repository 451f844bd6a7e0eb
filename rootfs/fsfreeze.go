package rootfs

import (
	"slices"
	"strings"
)

// A Skip is a mounted file system that is not frozen, and why.
type Skip struct {
	Target string `json:"target"`
	Type   string `json:"type,omitempty"`
	Reason string `json:"reason"`
}

// filesystem is one file system with all places where it is mounted, the one to open first being the last.
type filesystem struct {
	device  string // MAJOR:MINOR
	kind    string
	targets []string
	options string // of the superblock
}

// parseFilesystems reads mountinfo (proc(5)): one row for each file system, in the order in which each was first mounted.
// Lines of another shape are skipped.
func parseFilesystems(text string) []filesystem {
	var all []filesystem
	for line := range strings.Lines(text) {
		before, after, ok := strings.Cut(line, " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 6 || len(g) < 3 {
			continue
		}
		i := slices.IndexFunc(all, func(s filesystem) bool { return s.device == f[2] })
		if i < 0 {
			i = len(all)
			all = append(all, filesystem{device: f[2], kind: g[0], options: g[2]})
		}
		all[i].targets = append(all[i].targets, unescape(f[4]))
	}
	return all
}

// planFreeze chooses what is to be frozen, in this order: a file system before the one that it, its loop device's file
// or its upper layer lies on. Those were mounted before it, so it is the reverse order of first mounts.
//
// want are mount points, or "all"; a file system that holds a path of keep is left out, because we write there.
func planFreeze(all []filesystem, want, keep []string) (plan []filesystem, skipped []Skip) {
	everything := slices.Contains(want, "all")
	chosen := map[string]bool{} // by device
	skip := func(target, kind, reason string) { skipped = append(skipped, Skip{target, kind, reason}) }
	choose := func(s filesystem, named bool) {
		at := s.targets[len(s.targets)-1]
		if s.kind == "overlay" {
			// It cannot be frozen; what is written to it goes to the file system of its upper layer.
			upper, ok := option(s.options, "upperdir")
			below := holder(all, upper)
			if !ok || below < 0 || all[below].kind == s.kind {
				skip(at, s.kind, "an overlay whose upper layer is not to be seen here")
				return
			}
			s = all[below]
		}
		switch {
		case slices.Contains(volatile, s.kind) || strings.HasPrefix(s.kind, "fuse."):
			if named {
				skip(at, s.kind, "its data is not on a disk of this machine")
			}
		case strings.HasPrefix(s.options, "ro"):
			skip(at, s.kind, "read-only")
		default:
			chosen[s.device] = true
		}
	}
	for _, s := range all {
		if everything {
			choose(s, false)
		}
	}
	for _, target := range want {
		i := slices.IndexFunc(all, func(s filesystem) bool { return slices.Contains(s.targets, target) })
		switch {
		case target == "all":
		case i < 0:
			skip(target, "", "not a mount point")
		default:
			choose(all[i], true)
		}
	}
	for _, path := range keep {
		if i := holder(all, path); i >= 0 && chosen[all[i].device] {
			delete(chosen, all[i].device)
			skip(all[i].targets[0], all[i].kind, "rouse writes to "+path)
		}
	}
	for _, s := range slices.Backward(all) {
		if chosen[s.device] {
			plan = append(plan, s)
		}
	}
	return plan, skipped
}

// holder is the index of the file system that holds path, -1 for none: of the longest mount point above it the last
// mount, which covers those before.
func holder(all []filesystem, path string) int {
	best, length := -1, 0
	for i, s := range all {
		for _, t := range s.targets {
			above := t == "/" || path == t || strings.HasPrefix(path, t+"/")
			if above && len(t) >= length {
				best, length = i, len(t)
			}
		}
	}
	return best
}

// option is the value of one of a superblock's options.
func option(options, name string) (string, bool) {
	for _, o := range strings.Split(options, ",") {
		if v, ok := strings.CutPrefix(o, name+"="); ok {
			return unescape(v), true
		}
	}
	return "", false
}
