// Firecracker before 1.16: a constant package.
// find \_SB.VGEN FCVMGID 0xdfff0
// evaluate \_SB.VGEN.ADDR \_SB.VGEN._CID \_SB.VGEN._DDN \_SB.VGEN._HID
DefinitionBlock ("", "DSDT", 2, "ROUSE", "FIRECRAK", 1)
{
    Device (\_SB.VGEN)
    {
        Name (_HID, "FCVMGID")
        Name (_CID, "VM_Gen_Counter")
        Name (_DDN, "VM_Gen_Counter")
        Name (ADDR, Package (2) { 0x000DFFF0, 0x00000000 })
    }
}
