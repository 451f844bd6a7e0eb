package firewall

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
)

// liveTable is a table of ours as the kernel lists it.
type liveTable struct {
	flags uint32              // dormant, owner: we set none
	use   uint32              // chains, sets and objects in it
	rules map[string][][]byte // by chain: the expressions of each rule
}

// nfDumpInterrupted is NLM_F_DUMP_INTR: something changed during the dump.
const nfDumpInterrupted = unix.NLM_F_DUMP_INTR

// generation counts the commits to any ruleset of this network namespace.
func (n *nft) generation() (uint32, error) {
	e := n.sock.question()
	e.message(nftType(unix.NFT_MSG_GETGEN), unix.NLM_F_REQUEST, n.sock.nextSeq(), []byte{0, unix.NFNETLINK_V0, 0, 0})
	var gen uint32
	ok := false
	err := n.sock.ask(e, func(m message) error {
		if len(m.data) >= 4 {
			gen, ok = beUint32(attribute(m.data[4:], unix.NFTA_GEN_ID))
		}
		return nil
	})
	if err == nil && !ok {
		err = errShort
	}
	return gen, err
}

// readTable gives nil if there is no table of ours in that family.
func (n *nft) readTable(family string) (*liveTable, error) {
	e := n.sock.question()
	e.message(nftType(unix.NFT_MSG_GETTABLE), unix.NLM_F_REQUEST, n.sock.nextSeq(), nftHead(family))
	e.str(unix.NFTA_TABLE_NAME, TableName)
	var t *liveTable
	err := n.sock.ask(e, func(m message) error {
		if len(m.data) < 4 {
			return errShort
		}
		t = &liveTable{rules: map[string][][]byte{}}
		t.flags, _ = beUint32(attribute(m.data[4:], unix.NFTA_TABLE_FLAGS))
		t.use, _ = beUint32(attribute(m.data[4:], unix.NFTA_TABLE_USE))
		return nil
	})
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil || t == nil {
		return nil, err
	}
	return t, n.readRules(family, t)
}

// readRules asks for the rules of our table only: the time does not depend on
// how many others there are.
func (n *nft) readRules(family string, t *liveTable) error {
	e := n.sock.question()
	e.message(nftType(unix.NFT_MSG_GETRULE), unix.NLM_F_REQUEST|unix.NLM_F_DUMP, n.sock.nextSeq(), nftHead(family))
	e.str(unix.NFTA_RULE_TABLE, TableName)
	return n.sock.ask(e, func(m message) error {
		if m.flags&nfDumpInterrupted != 0 {
			return errTorn
		}
		if len(m.data) < 4 {
			return errShort
		}
		chain := cString(attribute(m.data[4:], unix.NFTA_RULE_CHAIN))
		es := attribute(m.data[4:], unix.NFTA_RULE_EXPRESSIONS)
		t.rules[chain] = append(t.rules[chain], append([]byte{}, es...))
		return nil
	})
}

// compareChain asks for one chain by name: a list of chains would hold those
// of every table in the family.
func (n *nft) compareChain(family string, want chain) error {
	e := n.sock.question()
	e.message(nftType(unix.NFT_MSG_GETCHAIN), unix.NLM_F_REQUEST, n.sock.nextSeq(), nftHead(family))
	e.str(unix.NFTA_CHAIN_TABLE, TableName)
	e.str(unix.NFTA_CHAIN_NAME, want.name)
	answered := false
	err := n.sock.ask(e, func(m message) error {
		if len(m.data) < 4 {
			return errShort
		}
		answered = true
		return sameChain(family, want, m.data[4:])
	})
	if err == nil && !answered {
		err = errShort
	}
	return err
}

// sameChain compares a base chain's type, hook, priority and policy.
func sameChain(family string, want chain, live []byte) error {
	at := attribute(live, unix.NFTA_CHAIN_HOOK)
	hook, ok1 := beUint32(attribute(at, unix.NFTA_HOOK_HOOKNUM))
	priority, ok2 := beUint32(attribute(at, unix.NFTA_HOOK_PRIORITY))
	policy, ok3 := beUint32(attribute(live, unix.NFTA_CHAIN_POLICY))
	kind := cString(attribute(live, unix.NFTA_CHAIN_TYPE))
	switch {
	case !ok1 || !ok2 || !ok3 || kind != "filter":
		return fmt.Errorf("is no filter chain with a hook")
	case hook != hookNumber(family, want.hook) || int32(priority) != int32(want.priority):
		return fmt.Errorf("hook %d priority %d, want %s priority %d", hook, int32(priority), want.hook, want.priority)
	case policy != nfAccept:
		return fmt.Errorf("policy %d", policy)
	}
	return nil
}

// conntrackCount tells whether conntrack follows flows in the namespace in
// which it was opened. To ask conntrack for a state starts it, and what it had
// not seen before is new to it: a rule that asks is right only where something
// else started it earlier.
type conntrackCount struct{ f *os.File }

// conntrackCountPath shows the entries of the opening thread's namespace, also
// when it is read later from another one.
const conntrackCountPath = "/proc/sys/net/netfilter/nf_conntrack_count"

// openConntrackCount never fails: without the file nothing tracks.
func openConntrackCount() *conntrackCount {
	f, err := os.Open(conntrackCountPath)
	if err != nil {
		return &conntrackCount{}
	}
	return &conntrackCount{f}
}

// running is false also where conntrack runs and follows nothing yet: then no
// established flow is there that a hold would have to spare or to tell apart.
func (c *conntrackCount) running() bool {
	if c.f == nil {
		return false
	}
	var b [16]byte
	n, err := c.f.ReadAt(b[:], 0)
	return n > 0 && b[0] != '0' && (err == nil || errors.Is(err, io.EOF))
}

func (c *conntrackCount) Close() {
	if c.f != nil {
		c.f.Close()
	}
}
