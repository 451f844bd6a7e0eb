// Terms that cannot be run are passed over; what stands behind them counts. ACPICA then takes names for those of the wrong scope; we do not.
// find \_SB.VGEN 0x8000
// evaluate \_SB.VGEN.ADDR \DUP \_SB.BAD.INSD
DefinitionBlock ("", "SSDT", 2, "ROUSE", "MISTAKES", 1)
{
    External (\NOPE, DeviceObj)
    External (\NVAL, IntObj)
    External (\NMTH, MethodObj)
    Scope (\NOPE)
    {
        Device (INNR) { Name (_CID, "VM_Gen_Counter") Name (ADDR, Package (2) { 0x1000, 0 }) }
    }
    Name (DUP, 1)
    Device (\_SB.BAD)
    {
        If (NVAL == 1) { Name (INSD, 1) } Else { Name (INSD, 2) }
        OperationRegion (OPR, SystemMemory, NVAL, 4)
        Name (INSE, 3)
    }
    Name (AFTR, 7)
    Device (\_SB.VGEN)
    {
        Name (_CID, "VM_Gen_Counter")
        Name (ADDR, Package (2) { 0x8000, 0x0 })
    }
}
