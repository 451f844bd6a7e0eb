// No ADDR below the device; one above it does not count.
// find error ADDR: not found
// evaluate \_SB.VGEN.ADDR
DefinitionBlock ("", "SSDT", 2, "ROUSE", "ADDRMISS", 1)
{
    Scope (\_SB)
    {
        Name (ADDR, Package (2) { 1, 0 })
    }
    Device (\_SB.VGEN)
    {
        Name (_CID, "VM_Gen_Counter")

    }
}
