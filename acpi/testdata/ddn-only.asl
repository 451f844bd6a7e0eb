// Only _DDN tells.
// find \_SB.VGEN ABC0001 0x3000
// evaluate \_SB.VGEN._DDN
DefinitionBlock ("", "SSDT", 2, "ROUSE", "DDNONLY", 1)
{
    Device (\_SB.VGEN)
    {
        Name (_DDN, "VM_Gen_Counter")
        Name (_HID, "ABC0001")
        Name (ADDR, Package (2) { 0x3000, 0x0 })
    }
}
