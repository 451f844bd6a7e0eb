// Package doctor knows what rouse wants of a kernel, which ways there are to get it, and what it costs where a way
// is missing.
//
// The easy case is a distribution's kernel: every need is met in the best way. The hard case is a microVM's kernel,
// cut down to a few hundred options and without modules: nothing fails there, but the gate stands on a lower rung, or
// /dev/sysgenid is a plain file, and that a clone is not safe shows only in a clone.
//
// One table serves two judges. In a guest each way has a probe: a fact that PID 1 has from what it really opened,
// or a file that is there if the kernel has it. On a host each way has kernel options, for the configuration
// of a kernel that has not been booted. Both give the same Report.
package doctor

// Need is one thing that rouse wants of a kernel.
type Need struct {
	Name string
	// Vital: without it a snapshot cannot be cloned safely.
	Vital bool
	Cost  string // of having it in no way
	Ways  []Way  // the best first
}

// Way is one way to have it.
type Way struct {
	Name string
	// Options are kernel options without CONFIG_, all of which are wanted; "A|B" is one of them, "!A" that it is off.
	Options string
	// Probe are signs of it, of which one will do: a fact's name, a path that exists, or "PATH:WORD", a file with that
	// word in it; between them "|".
	Probe string
	Cost  string // against a better way
}

// Finding is how a need is met.
type Finding struct {
	Need   string `json:"need"`
	Vital  bool   `json:"vital,omitempty"`
	Chosen string `json:"chosen"` // the way; "" if there is none
	// Missing are the options that the next better way lacks; if there is no way, those of the best one. In a guest, where options are
	// not known, all options of that way.
	Missing string `json:"missing,omitempty"`
	// Modules are options of the way chosen that are modules: the image has to hold them. Only of a configuration.
	Modules string `json:"modules,omitempty"`
	Cost    string `json:"cost,omitempty"`
}

// Report is what a kernel offers.
type Report struct {
	Kernel string `json:"kernel"`
	// Safe: every vital need is met. A guest that says so can be cloned; whether its services take part is for
	// `rouse verify`.
	Safe bool `json:"safe"`
	// Verdict is Safe in words, with what is wanting.
	Verdict string    `json:"verdict"`
	Needs   []Finding `json:"needs"`
	// Problems are what else is degraded in a guest.
	Problems []string `json:"problems,omitempty"`
}

// Has says if a way is there, which of its options are not, and which are modules. A judge that knows nothing of
// options names all of them as missing.
type Has func(*Way) (ok bool, missing, modules string)

// Judge goes through all needs.
func Judge(kernel string, has Has) *Report {
	r := &Report{Kernel: kernel, Safe: true, Verdict: "snapshots are safe here", Needs: make([]Finding, len(needs))}
	lack := ""
	for i := range needs {
		f := &r.Needs[i]
		needs[i].find(has, f)
		if f.Vital && f.Chosen == "" {
			lack += ", " + f.Need
		}
	}
	if lack != "" {
		r.Safe, r.Verdict = false, "snapshots are NOT safe here for want of: "+lack[2:]
	}
	return r
}

func (n *Need) find(has Has, f *Finding) {
	f.Need, f.Vital, f.Cost = n.Name, n.Vital, n.Cost
	for i := range n.Ways {
		w := &n.Ways[i]
		ok, missing, modules := has(w)
		if !ok {
			f.Missing = missing // at last what the way before the one chosen lacks
			continue
		}
		f.Chosen, f.Modules, f.Cost = w.Name, modules, w.Cost
		if i == 0 || w.Cost == "" {
			f.Missing = "" // nothing would be better
		}
		return
	}
	_, f.Missing, _ = has(&n.Ways[0])
}
