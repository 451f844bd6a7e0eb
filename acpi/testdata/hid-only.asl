// A _HID of that name, or a _CID that only begins so, is not enough.
// find error no VM generation id device
// evaluate \_SB.VGEN._CID
DefinitionBlock ("", "SSDT", 2, "ROUSE", "HIDONLY", 1)
{
    Device (\_SB.VGEN)
    {
        Name (_HID, "VM_Gen_Counter")
        Name (_CID, "VM_Gen_Counter_V1")
        Name (ADDR, Package (2) { 0x3000, 0x0 })
    }
}
