// Package firewall is the gate between a guest and its network: open, hold (no
// new flows) or shut (nothing in or out but loopback).
//
// The easy case is a guest that is about to be snapshotted: the gate holds while
// connections drain, then shuts, and the snapshot is taken with the gate shut,
// so that every clone wakes behind it. Dropped packets are dropped in silence:
// a peer sees a slow network, never a reset.
//
// The race is in the switch itself. Rules that come one by one leave moments in
// which one direction is shut and the other is not, or in which loopback is
// shut too; and between two commands somebody else may change what the first
// one made. So a switch is one transaction that replaces everything of ours,
// from whatever state it is in, and it counts only when it has been read back
// from the kernel. The state is never remembered: it is asked for.
//
// The mechanism is the first rung of a ladder that this kernel has; each is
// tried for real in a network namespace of its own before it is trusted. An
// open gate has nothing installed, so it costs no packet anything.
package firewall
