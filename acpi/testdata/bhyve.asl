// bhyve: a constant package below the root of devices, no _DDN.
// find \_SB.VGEN Bhyve_V_Gen_Counter_V1 0xbffff000
// evaluate \_SB.VGEN.ADDR \_SB.VGEN._CID \_SB.VGEN._HID
DefinitionBlock ("", "SSDT", 2, "ROUSE", "BHYVE", 1)
{
    Device (\_SB.VGEN)
    {
        Name (_HID, "Bhyve_V_Gen_Counter_V1")
        Name (_CID, "VM_Gen_Counter")
        Name (_DDN, "VM_Gen_Counter")
        Name (ADDR, Package (2) { 0xBFFFF000, 0x0 })
    }
}
