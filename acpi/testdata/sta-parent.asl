// The device is there, what holds it is not.
// find error \_SB.BUS._STA is 0x2
// evaluate \_SB.BUS._STA \_SB.BUS.VGEN._STA
DefinitionBlock ("", "SSDT", 2, "ROUSE", "STAPAREN", 1)
{
    Device (\_SB.BUS)
    {
        Name (_STA, 2)
    Device (VGEN)
    {
        Name (_CID, "VM_Gen_Counter")
        Name (_STA, 0x0F)
        Name (ADDR, Package (2) { 0x3000, 0x0 })
    }
    }
}
