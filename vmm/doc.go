// Package vmm drives QEMU on the host: it boots a guest, writes a snapshot of it to a file, and starts
// clones from that file, each with a VM generation id of its own.
//
// The easy case: Start a VM, talk to its guest through Control, Snapshot it, Start others with Incoming.
//
// The race: QEMU does nearly everything later than it says. A migration command returns before a byte is
// written, a clone that cannot be restored dies after it was started, and a process whose parent is gone runs
// on for ever. A snapshot that was cut off must not look like one.
//
// The mechanism: QMP, QEMU's own control protocol, on a unix socket; every step is waited for by its
// outcome; a snapshot is written beside its place and renamed when QEMU says that it is complete; QEMU dies with the
// process that started it; and when it dies early, its own last words are in the error.
package vmm
