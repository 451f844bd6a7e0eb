package firewall

import (
	"bytes"
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
)

// nft is the first rung: one table per family, changed in one batch.
//
// A batch makes the tables and chains that are missing, empties all chains and
// fills them anew; the kernel makes the rules of all chains take effect at one
// instant, by one store to the generation that every packet looks at
// (nf_tables_commit, net/netfilter/nf_tables_api.c). To open, a first batch
// empties the chains, which is that instant, and a second one deletes the
// tables: hooks go one after another, and those of a table that is deleted with
// its rules keep dropping until each is gone. An open gate is one without a
// table: no hook, no cost.
type nft struct {
	sock     *netlinkSocket
	listen   *netlinkSocket // for Guard; deaf until then
	caps     capabilities
	families []string
	tracked  *conntrackCount
	variants []variant
	empty    batch // no rules
	remove   batch // no tables
}

// variant is one thing that we may have set: a state, and what stands in the
// kernel then. Hold has two, for it asks conntrack only where that runs.
type variant struct {
	state    State
	tracking bool
	tables   []compiledTable
	fill     batch // what others added to our tables stays
	rebuild  batch // deletes our tables first
}

// batch is messages as they are sent; the one of sequence number last asks for
// an acknowledgement.
type batch struct {
	bytes []byte
	last  uint32
}

type compiledTable struct {
	family string
	chains []compiledChain
}

type compiledChain struct {
	chain
	rules []compiledRule
}

type compiledRule struct {
	expressions []expression
	// listed is how this kernel lists the rule, once it did: what is listed so
	// again needs no decoding.
	listed []byte
}

func newNft(caps capabilities, allow []Allow) (*nft, error) {
	sock, err := openNetlink(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, describe(err, "open netfilter socket")
	}
	listen, err := openNetlink(unix.NETLINK_NETFILTER)
	if err != nil {
		sock.Close()
		return nil, describe(err, "open netfilter socket")
	}
	n := &nft{sock: sock, listen: listen, caps: caps, families: []string{"inet"}, tracked: openConntrackCount()}
	if caps.arp {
		n.families = append(n.families, "arp")
	}
	if caps.bridge {
		n.families = append(n.families, "bridge")
	}
	n.compile(allow)
	return n, nil
}

// compile prepares every batch, so that Set only sends.
func (n *nft) compile(allow []Allow) {
	for _, v := range []variant{{state: Shut}, {state: Hold}, {state: Hold, tracking: true}} {
		if v.tracking && !n.caps.conntrack {
			continue
		}
		v.tables = compilePlan(planFor(v.state, n.caps, v.tracking, allow))
		v.fill = fillBatch(n.families, v.tables, false)
		v.rebuild = fillBatch(n.families, v.tables, true)
		n.variants = append(n.variants, v)
	}
	n.empty = emptyBatch(n.families)
	n.remove = removeBatch(n.families)
}

func (n *nft) set(s State) error {
	if s == Open {
		if err := n.send(n.empty); err != nil {
			return describe(err, "nftables batch that empties")
		}
		return describe(n.send(n.remove), "nftables batch that deletes")
	}
	return describe(n.send(n.variant(s).fill), "nftables batch for %v", s)
}

// open empties the chains and sees that none holds a rule.
func (n *nft) open() error {
	if err := n.send(n.empty); err != nil {
		return describe(err, "nftables batch that empties")
	}
	for _, f := range n.families {
		t := &liveTable{rules: map[string][][]byte{}}
		if err := n.readRules(f, t); err != nil {
			return err
		}
		if len(t.rules) > 0 {
			return fmt.Errorf("%w: %d chains of table %s %s hold rules", ErrTampered, len(t.rules), f, TableName)
		}
	}
	return nil
}

// reset makes the tables anew, for when somebody changed chains or added to
// them. That is atomic too when it shuts, and leaves no moment more open than
// before or after.
func (n *nft) reset(s State) error {
	if s == Open {
		return n.set(s)
	}
	return describe(n.send(n.variant(s).rebuild), "nftables batch for %v", s)
}

func (n *nft) send(b batch) error { return n.sock.transact(b.bytes, b.last) }

// variant picks what to set. Whether conntrack runs is asked at each hold: a
// service may have begun to use it since.
func (n *nft) variant(s State) *variant {
	tracking := s == Hold && n.caps.conntrack && n.tracked.running()
	for i := range n.variants {
		if v := &n.variants[i]; v.state == s && v.tracking == tracking {
			return v
		}
	}
	return nil // cannot be: compile makes them all
}

// readTries bounds how often a reading is begun again because somebody changed
// a ruleset, ours or another, meanwhile.
const readTries = 8

var errTorn = errors.New("ruleset kept changing while it was read")

func (n *nft) state() (State, error) {
	for range readTries {
		before, err := n.generation()
		if err != nil {
			return Open, describe(err, "read nftables generation")
		}
		s, err := n.read()
		after, genErr := n.generation()
		if genErr == nil && before == after && !errors.Is(err, errTorn) {
			return s, err
		}
	}
	return Open, errTorn
}

func (n *nft) read() (State, error) {
	found := make(map[string]*liveTable, len(n.families))
	for _, f := range n.families {
		t, err := n.readTable(f)
		if err != nil {
			return Open, describe(err, "read table %s %s", f, TableName)
		}
		if t != nil {
			found[f] = t
		}
	}
	if len(found) == 0 {
		return Open, nil
	}
	var why error
	for i := range n.variants {
		v := &n.variants[i]
		err := n.compare(v, found)
		if err == nil {
			return v.state, nil
		}
		if v.state == Shut {
			why = err
		}
	}
	return Open, fmt.Errorf("%w: it is not shut: %w", ErrTampered, why)
}

// compare says how the kernel's tables differ from a variant's.
func (n *nft) compare(v *variant, found map[string]*liveTable) error {
	if len(found) != len(v.tables) {
		return fmt.Errorf("%d of %d tables are there", len(found), len(v.tables))
	}
	for _, want := range v.tables {
		live := found[want.family]
		if live == nil {
			return fmt.Errorf("table %s %s is missing", want.family, TableName)
		}
		if err := n.compareTable(want, live); err != nil {
			return describe(err, "table %s %s", want.family, TableName)
		}
	}
	return nil
}

func (n *nft) compareTable(want compiledTable, live *liveTable) error {
	if live.flags != 0 {
		return fmt.Errorf("flags %#x are set", live.flags)
	}
	if int(live.use) != len(want.chains) {
		return fmt.Errorf("holds %d chains and sets, want %d", live.use, len(want.chains))
	}
	for _, c := range want.chains {
		if err := sameRules(live.rules[c.name], c.rules); err != nil {
			return describe(err, "chain %s", c.name)
		}
		if err := n.compareChain(want.family, c.chain); err != nil {
			return describe(err, "chain %s", c.name)
		}
	}
	return nil
}

// Close leaves the tables as they are.
func (n *nft) Close() error {
	n.tracked.Close()
	return errors.Join(n.sock.Close(), n.listen.Close())
}

func compilePlan(p plan) []compiledTable {
	var tables []compiledTable
	for _, t := range p {
		ct := compiledTable{family: t.family}
		for _, c := range t.chains {
			cc := compiledChain{chain: c}
			for _, r := range c.rules {
				cc.rules = append(cc.rules, compiledRule{expressions: compileRule(r)})
			}
			ct.chains = append(ct.chains, cc)
		}
		tables = append(tables, ct)
	}
	return tables
}

// fillBatch builds what makes our tables in all families be these. To add a
// table before it is deleted or emptied makes that succeed whether or not it
// was there.
func fillBatch(families []string, tables []compiledTable, anew bool) batch {
	b := beginBatch()
	for _, f := range families {
		b.addTable(f)
		if anew {
			b.object(unix.NFT_MSG_DELTABLE, 0, f)
			b.str(unix.NFTA_TABLE_NAME, TableName)
			b.addTable(f)
		}
	}
	for _, t := range tables {
		for _, c := range t.chains {
			b.chain(t.family, c.chain)
		}
		b.flush(t.family)
		for _, c := range t.chains {
			for _, r := range c.rules {
				b.rule(t.family, c.name, r.expressions)
			}
		}
	}
	return b.end()
}

func emptyBatch(families []string) batch {
	b := beginBatch()
	for _, f := range families {
		b.addTable(f)
		b.flush(f)
	}
	return b.end()
}

func removeBatch(families []string) batch {
	b := beginBatch()
	for _, f := range families {
		b.addTable(f)
		b.object(unix.NFT_MSG_DELTABLE, 0, f)
		b.str(unix.NFTA_TABLE_NAME, TableName)
	}
	return b.end()
}

// nftBatch writes nf_tables messages (include/uapi/linux/netfilter/nf_tables.h).
type nftBatch struct {
	encoder
	seq uint32
}

// control begins or ends the batch.
func (b *nftBatch) control(typ uint16) {
	head := []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES}
	b.seq++
	b.message(typ, unix.NLM_F_REQUEST, b.seq, head)
}

func (b *nftBatch) object(typ, flags uint16, family string) {
	b.seq++
	b.message(nftType(typ), unix.NLM_F_REQUEST|flags, b.seq, nftHead(family))
}

func beginBatch() *nftBatch {
	b := &nftBatch{}
	b.control(unix.NFNL_MSG_BATCH_BEGIN)
	return b
}

// end asks for an answer to the last message, and ends the batch.
func (b *nftBatch) end() batch {
	at := b.b[b.start+6:]
	binary.NativeEndian.PutUint16(at, binary.NativeEndian.Uint16(at)|unix.NLM_F_ACK)
	last := b.seq
	b.control(unix.NFNL_MSG_BATCH_END)
	return batch{b.finish(), last}
}

func (b *nftBatch) addTable(family string) {
	b.object(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, family)
	b.str(unix.NFTA_TABLE_NAME, TableName)
}

// flush deletes the rules of all chains in the table.
func (b *nftBatch) flush(family string) {
	b.object(unix.NFT_MSG_DELRULE, 0, family)
	b.str(unix.NFTA_RULE_TABLE, TableName)
}

func (b *nftBatch) chain(family string, c chain) {
	b.object(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, family)
	b.str(unix.NFTA_CHAIN_TABLE, TableName)
	b.str(unix.NFTA_CHAIN_NAME, c.name)
	b.nest(unix.NFTA_CHAIN_HOOK, func() {
		b.be32(unix.NFTA_HOOK_HOOKNUM, hookNumber(family, c.hook))
		b.be32(unix.NFTA_HOOK_PRIORITY, uint32(int32(c.priority)))
	})
	b.be32(unix.NFTA_CHAIN_POLICY, nfAccept)
	b.str(unix.NFTA_CHAIN_TYPE, "filter")
}

func (b *nftBatch) rule(family, chain string, es []expression) {
	b.object(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, family)
	b.str(unix.NFTA_RULE_TABLE, TableName)
	b.str(unix.NFTA_RULE_CHAIN, chain)
	b.nest(unix.NFTA_RULE_EXPRESSIONS, func() {
		for _, x := range es {
			b.nest(unix.NFTA_LIST_ELEM, func() { b.expression(x) })
		}
	})
}

func nftType(typ uint16) uint16 { return unix.NFNL_SUBSYS_NFTABLES<<8 | typ }

// nftHead is struct nfgenmsg: family, version, resource.
func nftHead(family string) []byte {
	return []byte{protocolNumber(family), unix.NFNETLINK_V0, 0, 0}
}

// sameRules compares a chain's rules, expression by expression.
func sameRules(live [][]byte, want []compiledRule) error {
	if len(live) != len(want) {
		return fmt.Errorf("%d rules, want %d", len(live), len(want))
	}
	for i := range want {
		if want[i].listed != nil && bytes.Equal(live[i], want[i].listed) {
			continue
		}
		if !sameExpressions(live[i], want[i].expressions) {
			return fmt.Errorf("rule %d is another", i+1)
		}
		want[i].listed = live[i]
	}
	return nil
}

func (n *nft) coverage() Coverage {
	c := Coverage{IPv4: true, IPv6: true, ND: true, Multicast: true, Forwarded: true, ARP: n.caps.arp, Bridged: n.caps.bridge, HoldTCP: "SYN without ACK, both directions"}
	if n.caps.conntrack {
		c.HoldUDP = "conntrack's new flows, both directions, where something tracks already"
	}
	return c
}
