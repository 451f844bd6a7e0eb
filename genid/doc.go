// Package genid knows which generation this machine is: where a new one shows, and how the kernel's
// random pool is made to differ from its twin's.
//
// The easy case: a hypervisor gives every resumed copy of a snapshot a new VMGenID, 16 bytes in a page
// of guest memory whose address ACPI tells. OpenPage maps it; ID is two loads from memory.
//
// The race: the page changes before the first instruction after the resume, the kernel's own driver
// (where there is one) reseeds some milliseconds later. In between the kernel still gives out its
// twin's bytes, so nobody may be told of the new generation before Reseed has returned.
//
// The mechanism: /dev/mem, mapped read-only, for the page; ioctls of /dev/urandom for the pool. A page
// of zeros is memory that STRICT_DEVMEM hides, not an id.
package genid
