package rootfs

import (
	"slices"
	"strings"
)

// A Skip is a file system that is not frozen, and why.
type Skip struct {
	Target string `json:"target"`
	Reason string `json:"reason"`
}

// filesystem is one with all places where it is mounted.
type filesystem struct {
	device  string // MAJOR:MINOR
	kind    string
	options string // of the superblock
	targets []string
	chosen  bool
	reason  string // why it is not frozen, if somebody may wonder
}

// parseFilesystems reads mountinfo (proc(5)): one row for each file system, in the order in which each was first mounted.
// Lines of another shape are skipped.
func parseFilesystems(text string) []*filesystem {
	var all []*filesystem
	for _, line := range strings.Split(text, "\n") {
		before, after, ok := strings.Cut(line, " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 6 || len(g) < 3 {
			continue
		}
		var known *filesystem
		for _, s := range all {
			if s.device == f[2] {
				known = s
			}
		}
		if known == nil {
			known = &filesystem{device: f[2], kind: g[0], options: g[2]}
			all = append(all, known)
		}
		known.targets = append(known.targets, unescape(f[4]))
	}
	return all
}

// planFreeze marks what is to be frozen. want are mount points, or "all"; a file system that holds a path of keep is left
// out, because we write there. It returns what of want is not mounted.
func planFreeze(all []*filesystem, want, keep []string) (missing []Skip) {
	for _, target := range want {
		found := target == "all"
		for _, s := range all {
			if named := slices.Contains(s.targets, target); named || target == "all" {
				found = true
				s.choose(all, named)
			}
		}
		if !found {
			missing = append(missing, Skip{target, "not a mount point"})
		}
	}
	for _, path := range keep {
		if s := holder(all, path); s != nil && s.chosen {
			s.chosen, s.reason = false, "rouse writes to "+path
		}
	}
	return missing
}

// choose marks s, or says in it why not.
func (s *filesystem) choose(all []*filesystem, named bool) {
	at := s
	if s.kind == "overlay" {
		// It cannot be frozen; what is written to it goes to the file system of its upper layer.
		_, upper, _ := strings.Cut(","+s.options, ",upperdir=")
		upper, _, _ = strings.Cut(upper, ",")
		if at = holder(all, unescape(upper)); at == nil || at.kind == s.kind {
			s.reason = "an overlay whose upper layer is not to be seen here"
			return
		}
	}
	switch {
	case slices.Contains(volatile, at.kind) || strings.HasPrefix(at.kind, "fuse."):
		if named {
			s.reason = "its data is not on a disk of this machine"
		}
	case strings.HasPrefix(at.options, "ro"):
		at.reason = "read-only"
	default:
		at.chosen = true
	}
}

// holder is the file system that holds path, nil for none: of the longest mount point above it the last mount, which
// covers those before.
func holder(all []*filesystem, path string) (best *filesystem) {
	length := 0
	for _, s := range all {
		for _, t := range s.targets {
			above := t == "/" && path != "" || strings.HasPrefix(path+"/", t+"/")
			if above && len(t) >= length {
				best, length = s, len(t)
			}
		}
	}
	return best
}
