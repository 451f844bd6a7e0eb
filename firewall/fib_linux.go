package firewall

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
)

// fib is the last rung: routing rules. It knows no hold, and what needs no
// route passes: ARP, neighbour discovery, multicast and packet sockets. Its
// rules go in one call but take effect one after another, so that for some 0.1 ms
// one direction or family is shut before the next; a local sender sees an error
// of its own.
//
// Before all other rules stands one that swallows what did not come from this
// machine, and behind the one for local addresses one that swallows the rest:
//
//	0: not from all iif lo blackhole
//	1: from all lookup local
//	2: from all blackhole
//
// New rules go behind those of the same priority, so the kernel's own rule for
// local addresses, of priority 0, makes way: it is added again at 1 before it
// goes from 0, and the other way around.
type fib struct{ sock, listen *netlinkSocket }

// fibProtocol marks our rules (FRA_PROTOCOL, 4.17), as routes are marked.
const fibProtocol = 0x72 // "r"

// include/uapi/linux/fib_rules.h
const (
	fraIifName  = 3
	fraPriority = 6
	fraTable    = 15
	fraProtocol = 21
	frToTable   = 1
	frBlackhole = 6
	frInvert    = 2
	fibRuleSize = 12
)

// fibRule is what we need of struct fib_rule_hdr and its attributes.
type fibRule struct {
	priority, table          uint32
	family, action, protocol byte
	invert                   bool
	iif                      byte
}

// The interfaces that a rule can be for.
const (
	iifAny = iota
	iifLo
	iifOther // none of ours
)

// The rules, but for the family.
var (
	fibIn    = fibRule{priority: 0, action: frBlackhole, invert: true, iif: iifLo, protocol: fibProtocol}
	fibLocal = fibRule{priority: 1, action: frToTable, table: unix.RT_TABLE_LOCAL, protocol: fibProtocol}
	fibOut   = fibRule{priority: 2, action: frBlackhole, protocol: fibProtocol}
	// kernelLocal is the kernel's rule, made by fib_default_rule_add.
	kernelLocal = fibRule{priority: 0, action: frToTable, table: unix.RT_TABLE_LOCAL, protocol: unix.RTPROT_KERNEL}
)

func (r *fibRule) in(family byte) fibRule {
	with := *r
	with.family = family
	return with
}

func openFib(o Options) (mechanism, error) {
	if len(o.Allow) > 0 {
		return nil, fmt.Errorf("routing rules know no exceptions: %w", errors.ErrUnsupported)
	}
	err := inThrowaway(func() error {
		m, err := newFib()
		if err != nil {
			return err
		}
		defer m.Close()
		if err := try(m, Shut); err != nil {
			return &UnsupportedError{"routing rules", "CONFIG_IP_MULTIPLE_TABLES, CONFIG_IPV6_MULTIPLE_TABLES", err}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return newFib()
}

func newFib() (*fib, error) {
	sock, err := openNetlink(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, describe(err, "open route socket")
	}
	listen, err := openNetlink(unix.NETLINK_ROUTE)
	if err != nil {
		sock.Close()
		return nil, describe(err, "open route socket")
	}
	return &fib{sock, listen}, nil
}

// fibChange adds or deletes a rule.
type fibChange struct {
	typ  uint16
	rule fibRule
}

// set sends all changes, of both families, in one call: a process that is killed
// has made all of them or none.
func (f *fib) set(s State) error {
	if s == Hold {
		return ErrNoHold
	}
	var todo []fibChange
	for _, family := range [...]byte{unix.AF_INET, unix.AF_INET6} {
		rules, err := f.rules(family)
		switch {
		case noFamily(err): // no IPv6 here: nothing to shut
		case err != nil:
			return err
		case s == Open:
			todo = append(todo, openChanges(family, rules)...)
		case isShut(family, rules) != nil:
			todo = append(todo, shutChanges(family, rules)...)
		}
	}
	if todo == nil {
		return nil
	}
	return describe(f.change(todo...), "change rules")
}

func noFamily(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT)
}

// shutChanges removes what a half-made or tampered gate left and adds what is
// missing, in an order in which every packet for this machine itself finds a rule
// for local addresses at any time.
func shutChanges(family byte, rules []fibRule) []fibChange {
	todo := openChanges(family, rules)
	for _, r := range [...]*fibRule{&fibLocal, &fibOut, &fibIn} {
		todo = append(todo, fibChange{unix.RTM_NEWRULE, r.in(family)})
	}
	if hasRule(rules, kernelLocal.in(family)) || hasRule(rules, fibLocal.in(family)) {
		todo = append(todo, fibChange{unix.RTM_DELRULE, kernelLocal.in(family)})
	}
	return todo
}

func hasRule(rules []fibRule, r fibRule) bool {
	for i := range rules {
		if rules[i] == r {
			return true
		}
	}
	return false
}

func openChanges(family byte, rules []fibRule) (todo []fibChange) {
	if hasRule(rules, fibLocal.in(family)) && !hasRule(rules, kernelLocal.in(family)) {
		todo = append(todo, fibChange{unix.RTM_NEWRULE, kernelLocal.in(family)})
	}
	for _, r := range rules {
		if r.protocol == fibProtocol {
			todo = append(todo, fibChange{unix.RTM_DELRULE, r})
		}
	}
	return todo
}

func (f *fib) state() (State, error) {
	shut, open := 0, 0
	var why error
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		rules, err := f.rules(family)
		switch {
		case noFamily(err):
		case err != nil:
			return Open, err
		case len(openChanges(family, rules)) == 0:
			open++
		default:
			shut++
			why = errors.Join(why, isShut(family, rules))
		}
	}
	switch {
	case why != nil:
		return Open, fmt.Errorf("%w: %w", ErrTampered, why)
	case shut > 0 && open > 0:
		return Open, fmt.Errorf("%w: one family is shut, the other is not", ErrTampered)
	case shut > 0:
		return Shut, nil
	}
	return Open, nil
}

// isShut says how a list of rules, in the order in which the kernel goes through
// it, differs from a shut gate's.
func isShut(family byte, rules []fibRule) error {
	for i, want := range [...]*fibRule{&fibIn, &fibLocal, &fibOut} {
		if i >= len(rules) || rules[i] != want.in(family) {
			return fmt.Errorf("family %d: rule %d is another", family, i+1)
		}
	}
	return nil
}

func (f *fib) rules(family byte) ([]fibRule, error) {
	for range readTries {
		var rules []fibRule
		e := &encoder{}
		head := make([]byte, fibRuleSize)
		head[0] = family
		e.message(unix.RTM_GETRULE, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, f.sock.nextSeq(), head)
		err := f.sock.ask(e, func(m message) error {
			if m.flags&unix.NLM_F_DUMP_INTR != 0 {
				return errTorn
			}
			if r, ok := ruleOf(m); ok && r.family == family {
				rules = append(rules, r)
			}
			return nil
		})
		if !errors.Is(err, errTorn) {
			return rules, describe(err, "list rules")
		}
	}
	return nil, errTorn
}

func ruleOf(m message) (fibRule, bool) {
	if m.typ != unix.RTM_NEWRULE || len(m.data) < fibRuleSize {
		return fibRule{}, false
	}
	attrs := m.data[fibRuleSize:]
	r := fibRule{family: m.data[0], action: m.data[7]}
	if name := cString(attribute(attrs, fraIifName)); name == "lo" {
		r.iif = iifLo
	} else if name != "" {
		r.iif = iifOther
	}
	r.invert = binary.NativeEndian.Uint32(m.data[8:])&frInvert != 0
	if b := attribute(attrs, fraPriority); len(b) == 4 {
		r.priority = binary.NativeEndian.Uint32(b)
	}
	if b := attribute(attrs, fraTable); len(b) == 4 && r.action == frToTable {
		r.table = binary.NativeEndian.Uint32(b)
	}
	if b := attribute(attrs, fraProtocol); len(b) == 1 {
		r.protocol = b[0]
	}
	return r, true
}

func (f *fib) change(todo ...fibChange) error {
	e := &encoder{}
	for _, c := range todo {
		e.change(c, f.sock.nextSeq())
	}
	return f.sock.transact(e.finish(), f.sock.seq)
}

func (e *encoder) change(c fibChange, seq uint32) {
	r := c.rule
	head := make([]byte, fibRuleSize)
	head[0], head[4], head[7] = r.family, byte(r.table), r.action
	if r.invert {
		binary.NativeEndian.PutUint32(head[8:], frInvert)
	}
	flags := uint16(unix.NLM_F_REQUEST | unix.NLM_F_ACK)
	if c.typ == unix.RTM_NEWRULE {
		flags |= unix.NLM_F_CREATE | unix.NLM_F_EXCL
	}
	e.message(c.typ, flags, seq, head)
	e.u32(fraPriority, r.priority)
	if r.action == frToTable {
		e.u32(fraTable, r.table)
	}
	if r.iif == iifLo {
		e.str(fraIifName, "lo")
	}
	e.attr(fraProtocol, []byte{r.protocol})
}

func (f *fib) watch(on bool) error {
	return f.listen.membership(on, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE)
}

func (f *fib) events() []*netlinkSocket { return []*netlinkSocket{f.listen} }

func (f *fib) coverage() Coverage {
	return Coverage{IPv4: true, IPv6: true, Forwarded: true}
}

// Close leaves the rules as they are.
func (f *fib) Close() error { return errors.Join(f.sock.Close(), f.listen.Close()) }
