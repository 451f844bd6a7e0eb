// A DSDT of revision 1 with nothing in it.
// find error no VM generation id device
DefinitionBlock ("", "DSDT", 1, "ROUSE", "EMPTYDSD", 1)
{

}
