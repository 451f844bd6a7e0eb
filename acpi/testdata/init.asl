// _INI of what holds the device, then its own, compute what ADDR gives.
// find \_SB.BUS.VGEN  0x31000
// evaluate \_SB.BUS.VGEN.ADDR \BASE
DefinitionBlock ("", "SSDT", 2, "ROUSE", "INIT", 1)
{
    Name (BASE, 0)
    Scope (\_SB)
    {
        Method (_INI, 0) { BASE = 0x10000 }
        Device (BUS)
        {
            Method (_INI, 0) { BASE += 0x20000 }
            Device (VGEN)
            {
                Name (_CID, "VM_Gen_Counter")
                Name (ADDR, Package (2) { 0, 0 })
                Method (_INI, 0) { ADDR [0] = (BASE + 0x1000) }
            }
        }
    }
}
