// Package acpi finds the VM generation id: bytes of firmware tables in, a physical address out.
//
// The easy case: read the tables, ask for the device.
//
//	tables, err := acpi.ReadTables(os.DirFS("/sys/firmware/acpi/tables"))
//	dev, err := acpi.FindVMGenID(tables, nil)
//
// On arm64 machines without ACPI the same address stands in the device tree; see [FindVMGenIDTree]
// and, for the vmclock page, [FindVMClockTree].
//
// The race: none. The tables are a copy that the kernel made at boot, and nothing here is kept. What
// can change between boot and now is a field in system memory that an AML method reads; it is read
// once, through the reader that the caller hands in, at the moment of the call.
//
// The mechanism: a hypervisor publishes the address as the result of evaluating the AML object ADDR
// below a device whose _CID or _DDN is VM_Gen_Counter (Microsoft, "Virtual Machine Generation ID",
// 2012). Some make ADDR a constant, some compute it in a method from names that firmware patched, or
// from fields in memory. So this is an interpreter for the part of AML that such methods use. It
// loads the DSDT and every SSDT into one namespace, as an operating system does, and evaluates. It
// never writes to the machine: what a method stores into a memory field is kept in the interpreter
// and seen only by later reads of the same evaluation. Ports, PCI configuration space and embedded
// controllers are not reachable; a method that needs them ends in an error.
//
// Where the specification is silent or software disagrees, ACPICA decides, as hypervisors are tested
// against it; testdata holds what its acpiexec says. Known differences: a name in a package is read
// when the element is, not when the package is made; a bad term outside methods is stepped over in
// the right scope; index and bank fields, Load, LoadTable, Unload and ConcatenateResTemplate are refused.
//
// The bytes are the host's, so nothing they say is believed: steps, memory and depth are bounded by
// the constants in limits.go, and a table that is damaged in one place is used as far as it is sound,
// as operating systems do.
package acpi
