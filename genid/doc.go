// Package genid knows which generation this machine is: where a new one shows, and how the kernel's
// random pool is made to differ from its twin's.
//
// The easy case: a hypervisor gives every resumed copy of a snapshot a new VMGenID, 16 bytes in a page
// of guest memory whose address ACPI tells. OpenSources finds it and whatever else there is; ID is a few
// loads from memory, Events says when a look is worth it.
//
// The race: the page changes before the first instruction after the resume, the kernel's own driver
// (where there is one) reseeds some milliseconds later. In between the kernel still gives out its
// twin's bytes, so nobody may be told of the new generation before Reseed has returned. And the sources
// do not tell at the same time: the kernel's log line about a clone comes when the page has long been
// acted upon. Telling twice of one clone would sever its new connections; taking two clones for one
// would leave the second with the first one's secrets. See agreement for how they are told apart.
//
// The mechanism: /dev/mem, mapped read-only, for the page; /dev/vmclock0, mapped, read as a seqlock; a
// kernel driver's /dev/sysgenid, mapped; /dev/kmsg and uevents of the kernel's driver, awaited with
// epoll, so that nothing wakes while nothing happens. Ioctls of /dev/urandom for the pool. A page of
// zeros is memory that STRICT_DEVMEM hides, not an id.
package genid
