// Package quiesce is the flow around a VM snapshot: which phase follows which, what may fail, what
// happens then, and the report of it all.
//
// The easy case: Quiesce empties and shuts the guest and answers when a snapshot may be taken; then the
// host either releases the same machine (Release), or resumes a copy, which shows a new generation, and
// the copy is adjusted: reseeded, its inherited connections severed, the generation bumped, its
// watchers waited for, and only then opened.
//
// The race: a snapshot can be taken and resumed at any instant, in the middle of a quiesce, twice in a
// row, or without any quiesce at all. So a watch on the generation runs beside every phase; whenever it
// sees a new one, the phase at hand is cut short and the adjust starts from its first step.
//
// The mechanism: one goroutine (Run) owns all state and drives the parts, which others implement: this
// package declares the interfaces that it needs and knows no netlink, no FUSE and no cgroup. Requests
// are messages to that goroutine. The states and what may follow what stand in states.go, each phase
// with the reason for its place in quiesce_phases.go and adjust_phases.go.
//
// Each quiesce, thaw and adjust ends with a Report; docs/reports.md tells what the fields and phases mean. A mistake of rouse
// itself, a panic, is an event too (fault.go): it holds the machine, shut.
package quiesce
