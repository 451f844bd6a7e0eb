// Not present but functional (bit 3).
// find \_SB.VGEN  0x3000
// evaluate \_SB.VGEN._STA
DefinitionBlock ("", "SSDT", 2, "ROUSE", "STAFUNCT", 1)
{
    Device (\_SB.VGEN)
    {
        Name (_CID, "VM_Gen_Counter")
        Name (_STA, 8)
        Name (ADDR, Package (2) { 0x3000, 0x0 })
    }
}
