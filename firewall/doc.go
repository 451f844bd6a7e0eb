// Package firewall is the gate between a guest and its network: open, hold (no
// new flows) or shut (nothing in or out but loopback).
//
// The easy case is a guest that is about to be snapshotted: the gate holds while
// connections drain, then shuts, and the snapshot is taken with the gate shut,
// so that every clone wakes behind it. Dropped packets are dropped in silence:
// a peer sees a slow network, never a reset.
//
// The race is in the switch itself. Rules that come one by one leave moments in
// which one direction or family is shut and the other is not, or in which
// loopback is shut too; and between two commands somebody else may change what
// the first one made. So a switch is one transaction, from whatever state there
// is, and it counts only when it has been read back from the kernel. The state
// is never remembered: it is asked for. [Gate.Guard] undoes what others do to a
// gate that is not open.
//
// A process that dies in the middle of a switch leaves the old state or the new
// one: each mechanism's step is one call that a signal cannot cut in two. Of two
// that stand beside each other the second may be left behind; what only that one
// sees (packet sockets, beside nftables) is then as it was before, [Gate.State]
// says that the gate is not whole, and the next Set makes it so.
//
// The mechanism is the first rung of a ladder that this kernel has, each tried
// for real in a network namespace (or cgroup) of its own before it is trusted:
//
//   - nftables: one table per family; the rules of all chains change when a
//     batch commits.
//   - cgroup: eBPF on what sockets send and receive, in all network namespaces
//     of the machine. One word in a map says which state it is, to all programs.
//   - tc: the same program on every link, below the IP stack. By default it
//     stands beside nftables or cgroup, for what those do not see.
//   - fib: routing rules. Not atomic, no hold, no exceptions; the last resort.
//
// [Gate.Coverage] says what the one in use does not see. No mechanism sees what
// goes around the kernel's queues: AF_XDP, packet sockets with
// PACKET_QDISC_BYPASS, devices handed to user space; nor what other namespaces
// send over devices of their own; and programs that others attach by tcx run
// before tc's.
//
// What services and peers notice: a local sender of datagrams may get EPERM from
// nftables (as from any netfilter rule) and cgroup, and EINVAL from fib; tc alone
// lets it believe that it sent. TCP takes all of them for loss and goes on after
// any time that it would survive without a network. While the gate is shut nobody answers ARP or neighbour
// solicitations: a peer on the same link that has no neighbour entry yet gets
// "no route to host" after some three seconds, one that has an entry just waits.
//
// The tc rung does not attach by tcx, which kernels have since 6.6: to detach a
// program there awaits an RCU grace period (tcx_entry_sync), 53 ms where all of
// clsact and its filters took 0.8 ms in the same run (BenchmarkLink), and an opening
// gate would pay that for each program of each link, one after another. To go before
// others' tcx programs, which is what it would give, lasts only until the next of
// them asks to go first; nftables before tc stops what those let pass.
//
// An open gate has nothing installed, so it costs no packet anything. To take hooks out of the
// kernel takes it longer than all else in a resume's last step (it patches its own code for each), so
// while a [Gate.Guard] runs, nftables' hooks are emptied first, which is the opening,
// and the Guard removes them some milliseconds later.
package firewall
