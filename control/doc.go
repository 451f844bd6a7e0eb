// Package control is the channel between a host and the guest's init: the server that runs in the
// guest and the client that runs on the host.
//
// The easy case: one JSON object a line each way, as the QEMU guest agent speaks, so that libvirt and
// everything built on it can quiesce a guest without knowing rouse. A request is executed, the answer
// carries its id, the next request follows.
//
// The race: a snapshot stops the guest between any two bytes. The clone wakes with half a line in its
// parser, with an answer that its own client will never read, or in the middle of a command whose client
// only exists on the other side. Clients also give up: they time out, then ask for the opposite of what is
// still running.
//
// The mechanism: every connection has an epoch. A 0xFF byte, guest-sync, guest-sync-delimited and a host
// that goes away begin a new one; half a line and waiting requests are dropped, and the answer of a command
// that is still running is thrown away when it comes. The command itself goes on: a quiesce belongs to the
// guest, not to the connection that asked for it. No wait is without a deadline, and a client that
// does not read costs only its own connection.
package control
