// Firecracker from 1.16 on: another _HID, memory above 4 GiB.
// find \_SB.VGEN VMGENCTR 0x23ffff010
// evaluate \_SB.VGEN.ADDR \_SB.VGEN._CID \_SB.VGEN._DDN \_SB.VGEN._HID
DefinitionBlock ("", "DSDT", 2, "ROUSE", "FIRECRAK", 2)
{
    Device (\_SB.VGEN)
    {
        Name (_HID, "VMGENCTR")
        Name (_CID, "VM_Gen_Counter")
        Name (_DDN, "VM_Gen_Counter")
        Name (ADDR, Package (2) { 0x3FFFF010, 0x00000002 })
    }
}
