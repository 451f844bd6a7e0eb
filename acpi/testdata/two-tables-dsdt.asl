// The DSDT for two-tables.
// find error no VM generation id device
// evaluate \BASE
DefinitionBlock ("", "DSDT", 2, "ROUSE", "TWOTABLE", 1)
{
    Name (BASE, 0x80000)
    Method (PLUS, 2, NotSerialized) { Return (Arg0 + Arg1) }
}
