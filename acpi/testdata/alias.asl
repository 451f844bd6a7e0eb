// Aliases of a package, of a method and of a device; an alias of an alias.
// find \_SB.REAL  0x5000
// evaluate \_SB.REAL.ADDR \_SB.OTHR.ADDR \_SB.REAL.AGAN \CALL
DefinitionBlock ("", "SSDT", 2, "ROUSE", "ALIAS", 1)
{
    Scope (\_SB)
    {
        Name (HERE, Package (2) { 0x5000, 0 })
        Device (REAL)
        {
            Name (_CID, "VM_Gen_Counter")
            Alias (HERE, ADDR)
            Alias (ADDR, AGAN)
        }
        Alias (REAL, OTHR)
    }
    Method (TWIC, 1) { Return (Arg0 * 2) }
    Alias (TWIC, DBL)
    Method (CALL, 0) { Return (DBL (21)) }
}
