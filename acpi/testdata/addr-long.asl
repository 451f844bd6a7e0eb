// ADDR with three elements.
// find error 3 elements
// evaluate \_SB.VGEN.ADDR
DefinitionBlock ("", "SSDT", 2, "ROUSE", "ADDRLONG", 1)
{
    Device (\_SB.VGEN)
    {
        Name (_CID, "VM_Gen_Counter")
        Name (ADDR, Package (3) { 0x1000, 0, 0 })
    }
}
