package verify

import (
	"fmt"
	"slices"
	"strings"
)

// compare judges all but the captures.
func (c Config) compare(all []*facts) []Check {
	checks := []Check{generation(all), c.watched(all)}
	for i := range all[0].ports {
		checks = append(checks, comparePort(all, i)...)
	}
	if len(all[0].ports) == 0 {
		checks = append(checks, Check{Name: "services from outside", Verdict: Note,
			Says: "no port was given to rouse bake --port, so that no answers could be compared"})
	}
	for _, name := range []string{"kernel's random stream", "boot id", "machine id"} {
		checks = append(checks, compareOwn(all, name))
	}
	if c.Exec != nil {
		checks = append(checks, comparePrinted(all))
	}
	return append(checks, identity("MAC addresses", all, func(f *facts) string { return strings.Join(f.macs, ", ") }),
		identity("host name", all, func(f *facts) string { return f.host }))
}

func each(all []*facts, get func(*facts) string) []string {
	var list []string
	for _, f := range all {
		list = append(list, get(f))
	}
	return list
}

func same(values []string) bool {
	return len(values) > 1 && values[0] == values[1]
}

func generation(all []*facts) Check {
	k := Check{Name: "generation", Verdict: Pass, Says: "each clone noticed that it is one, and reseeded its kernel",
		Values: each(all, func(f *facts) string { return fmt.Sprintf("%d, %s", f.clone.Status.Generation, f.clone.VMGenID) })}
	for _, f := range all {
		if !slices.ContainsFunc(phases(f.clone.Report), func(p phase) bool { return p.Name == "entropy" }) {
			k.Verdict, k.Says = Fail, "a clone's report tells of no reseed"
		}
	}
	if same(each(all, func(f *facts) string { return f.clone.VMGenID })) {
		k.Verdict, k.Says = Fail, "the clones have one VM generation id"
	}
	return k
}

// watched wants somebody in every running service to have been told.
func (c Config) watched(all []*facts) Check {
	k := Check{Name: "watchers", Verdict: Pass, Says: "every running service has a tracked watcher that acknowledged, or a hook that ran"}
	var bare []string
	for _, f := range all {
		var who []string
		for _, w := range f.watchers {
			who = append(who, fmt.Sprintf("%s (%s, pid %d)", w.Service, w.Command, w.PID))
			if w.Acknowledged != f.clone.Status.Generation {
				k.Verdict, k.Says = Fail, "a watcher was let through without having acknowledged"
			}
		}
		k.Values = append(k.Values, strings.Join(who, ", "))
		bare = append(bare, c.unwatched(f)...)
	}
	if len(bare) > 0 {
		slices.Sort(bare)
		k.Verdict = Fail
		k.Says = fmt.Sprintf("nobody tells service %s that it was cloned: track /dev/sysgenid in it, give it an after-restore hook, or accept it with --allow",
			strings.Join(slices.Compact(bare), ", "))
	}
	return k
}

func (c Config) unwatched(f *facts) []string {
	var bare []string
	for _, s := range f.services {
		watched := slices.ContainsFunc(f.watchers, func(w watcher) bool { return w.Service == s.Name })
		if s.State == "running" && !watched && !slices.Contains(f.hooked, s.Name) && !slices.Contains(c.Allow, s.Name) {
			bare = append(bare, s.Name)
		}
	}
	return bare
}

func comparePort(all []*facts, i int) []Check {
	if len(all) < 2 || i >= len(all[1].ports) {
		return nil
	}
	a, b := all[0].ports[i], all[1].ports[i]
	name := fmt.Sprintf("port %d ", a.guest)
	var checks []Check
	if a.tls {
		checks = append(checks, compareHello(name, a, b), compareTickets(name, a))
	}
	if a.err != nil || b.err != nil {
		return append(checks, Check{Name: name + "answers", Verdict: Note, Values: []string{fmt.Sprint(a.err), fmt.Sprint(b.err)},
			Says: "no HTTP there; give --exec a command that prints what must differ"})
	}
	return append(checks, compareAnswers(name, a, b)...)
}

func compareHello(name string, a, b answers) Check {
	k := Check{name + "TLS randoms", Pass, "the first ServerHello of each has a random of its own", []string{a.hello, b.hello}}
	if a.hello == b.hello && a.hello != "" {
		k.Verdict, k.Says = Fail, "both clones drew the same TLS random: whoever sees one handshake knows the other's nonce"
	}
	return k
}

func compareTickets(name string, a answers) Check {
	k := Check{name + "TLS ticket keys", Pass, "a session of clone 0 means nothing to clone 1", []string{a.self + " by itself", a.twin + " by its twin"}}
	switch {
	case a.twin == taken:
		k.Verdict, k.Says = Fail, "clone 1 takes a session of clone 0: they hold the same ticket keys"
	case a.self != taken || a.twin != refused:
		k.Verdict, k.Says = Note, "sessions are not resumed here, so that nothing can be said of ticket keys"
	}
	return k
}

func compareAnswers(name string, a, b answers) []Check {
	repeats, constant := repeated(a, b)
	k := Check{name + "random values", Pass, "no value that changes from answer to answer came from both", []string{sample(changing(a)), sample(changing(b))}}
	if len(repeats) > 0 {
		k.Verdict = Fail
		k.Says = "both clones gave " + sample(repeats) + ", which a clone gives only once: they draw from one stream"
	}
	checks := []Check{k}
	if len(constant) > 0 {
		checks = append(checks, Check{name + "constants", Note, "in every answer of both: fine unless it is a secret", []string{sample(constant)}})
	}
	return checks
}

// changing are the values of the first answer that the second has not.
func changing(a answers) []string {
	later := values(a.second)
	return slices.DeleteFunc(values(a.first), func(v string) bool { return slices.Contains(later, v) })
}

// sample keeps a table readable.
func sample(list []string) string {
	text := strings.Join(list[:min(len(list), 2)], " ")
	if len(text) > 80 {
		text = text[:77] + "..."
	}
	if len(list) > 2 {
		text += fmt.Sprintf(" and %d more", len(list)-2)
	}
	return text
}

func compareOwn(all []*facts, name string) Check {
	k := Check{Name: name, Verdict: Pass, Says: "each has its own", Values: each(all, func(f *facts) string { return f.own[name] })}
	switch {
	case k.Values[0] == "":
		k.Verdict, k.Says, k.Values = Note, "the guest does not tell", nil
	case same(k.Values) && name == "kernel's random stream":
		k.Verdict, k.Says = Fail, "both kernels give the same random bytes"
	case same(k.Values):
		k.Verdict, k.Says = Note, "the same in both: fine unless something takes it for unique"
	}
	return k
}

func comparePrinted(all []*facts) Check {
	k := Check{Name: "--exec", Verdict: Pass, Says: "no line is the same in both", Values: each(all, func(f *facts) string { return sample(strings.Fields(f.printed)) })}
	var both []string
	twin := strings.Split(all[1].printed, "\n")
	for _, line := range strings.Split(all[0].printed, "\n") {
		if strings.TrimSpace(line) != "" && slices.Contains(twin, line) {
			both = append(both, line)
		}
	}
	if len(both) > 0 {
		k.Verdict, k.Says = Fail, "the same in both: "+sample(both)
	}
	return k
}

// identity is what two machines on one network must not share; the clones of a verify are on networks of
// their own.
func identity(name string, all []*facts, get func(*facts) string) Check {
	k := Check{Name: name, Verdict: Pass, Says: "each has its own", Values: each(all, get)}
	if same(k.Values) {
		k.Verdict, k.Says = Note, "the same in both, as no identity was handed over; on one network give rouse clone --mac, --address, --hostname"
	}
	return k
}
