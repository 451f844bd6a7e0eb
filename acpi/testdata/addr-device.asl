// ADDR with a device in it.
// find error element 1: wrong type
// evaluate \_SB.VGEN.ADDR
DefinitionBlock ("", "SSDT", 2, "ROUSE", "ADDRDEVI", 1)
{
    Device (\_SB.VGEN)
    {
        Name (_CID, "VM_Gen_Counter")
        Name (ADDR, Package (2) { 0x1000, \_SB })
    }
}
