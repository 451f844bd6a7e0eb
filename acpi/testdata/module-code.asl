// Code outside methods decides what is there.
// find \_SB.VGN2  0x2000
// evaluate \_SB.VGN1.ADDR \_SB.VGN2.ADDR \PICK \CNT
DefinitionBlock ("", "SSDT", 2, "ROUSE", "MODULECO", 1)
{
    Name (PICK, 2)
    Name (CNT, 0)
    While (CNT < 7) { CNT++ }
    If (PICK == 1)
    {
        Device (\_SB.VGN1) { Name (_CID, "VM_Gen_Counter") Name (ADDR, Package (2) { 0x1000, 0 }) }
    }
    ElseIf (CondRefOf (\_OSI) && _OSI ("Windows 2015"))
    {
        Device (\_SB.VGN2) { Name (_CID, "VM_Gen_Counter") Name (ADDR, Package (2) { 0x2000, 0 }) }
    }
    Else
    {
        Device (\_SB.VGN3) { Name (_CID, "VM_Gen_Counter") Name (ADDR, Package (2) { 0x3000, 0 }) }
    }
}
