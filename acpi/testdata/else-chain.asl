// Sixty else-ifs are sixty blocks within each other.
// find \_SB.VGEN  0x13b0
// evaluate \_SB.VGEN.ADDR
DefinitionBlock ("", "SSDT", 2, "ROUSE", "ELSECHAI", 1)
{
    Device (\_SB.VGEN)
    {
        Name (_CID, "VM_Gen_Counter")
        Method (ADDR, 0, NotSerialized)
        {
            Local0 = Package (2) { 0, 0 }
            Local1 = 59
            If (Local1 == 0) { Local0 [0] = 0x1000 }
            ElseIf (Local1 == 1) { Local0 [0] = 0x1010 }
            ElseIf (Local1 == 2) { Local0 [0] = 0x1020 }
            ElseIf (Local1 == 3) { Local0 [0] = 0x1030 }
            ElseIf (Local1 == 4) { Local0 [0] = 0x1040 }
            ElseIf (Local1 == 5) { Local0 [0] = 0x1050 }
            ElseIf (Local1 == 6) { Local0 [0] = 0x1060 }
            ElseIf (Local1 == 7) { Local0 [0] = 0x1070 }
            ElseIf (Local1 == 8) { Local0 [0] = 0x1080 }
            ElseIf (Local1 == 9) { Local0 [0] = 0x1090 }
            ElseIf (Local1 == 10) { Local0 [0] = 0x10A0 }
            ElseIf (Local1 == 11) { Local0 [0] = 0x10B0 }
            ElseIf (Local1 == 12) { Local0 [0] = 0x10C0 }
            ElseIf (Local1 == 13) { Local0 [0] = 0x10D0 }
            ElseIf (Local1 == 14) { Local0 [0] = 0x10E0 }
            ElseIf (Local1 == 15) { Local0 [0] = 0x10F0 }
            ElseIf (Local1 == 16) { Local0 [0] = 0x1100 }
            ElseIf (Local1 == 17) { Local0 [0] = 0x1110 }
            ElseIf (Local1 == 18) { Local0 [0] = 0x1120 }
            ElseIf (Local1 == 19) { Local0 [0] = 0x1130 }
            ElseIf (Local1 == 20) { Local0 [0] = 0x1140 }
            ElseIf (Local1 == 21) { Local0 [0] = 0x1150 }
            ElseIf (Local1 == 22) { Local0 [0] = 0x1160 }
            ElseIf (Local1 == 23) { Local0 [0] = 0x1170 }
            ElseIf (Local1 == 24) { Local0 [0] = 0x1180 }
            ElseIf (Local1 == 25) { Local0 [0] = 0x1190 }
            ElseIf (Local1 == 26) { Local0 [0] = 0x11A0 }
            ElseIf (Local1 == 27) { Local0 [0] = 0x11B0 }
            ElseIf (Local1 == 28) { Local0 [0] = 0x11C0 }
            ElseIf (Local1 == 29) { Local0 [0] = 0x11D0 }
            ElseIf (Local1 == 30) { Local0 [0] = 0x11E0 }
            ElseIf (Local1 == 31) { Local0 [0] = 0x11F0 }
            ElseIf (Local1 == 32) { Local0 [0] = 0x1200 }
            ElseIf (Local1 == 33) { Local0 [0] = 0x1210 }
            ElseIf (Local1 == 34) { Local0 [0] = 0x1220 }
            ElseIf (Local1 == 35) { Local0 [0] = 0x1230 }
            ElseIf (Local1 == 36) { Local0 [0] = 0x1240 }
            ElseIf (Local1 == 37) { Local0 [0] = 0x1250 }
            ElseIf (Local1 == 38) { Local0 [0] = 0x1260 }
            ElseIf (Local1 == 39) { Local0 [0] = 0x1270 }
            ElseIf (Local1 == 40) { Local0 [0] = 0x1280 }
            ElseIf (Local1 == 41) { Local0 [0] = 0x1290 }
            ElseIf (Local1 == 42) { Local0 [0] = 0x12A0 }
            ElseIf (Local1 == 43) { Local0 [0] = 0x12B0 }
            ElseIf (Local1 == 44) { Local0 [0] = 0x12C0 }
            ElseIf (Local1 == 45) { Local0 [0] = 0x12D0 }
            ElseIf (Local1 == 46) { Local0 [0] = 0x12E0 }
            ElseIf (Local1 == 47) { Local0 [0] = 0x12F0 }
            ElseIf (Local1 == 48) { Local0 [0] = 0x1300 }
            ElseIf (Local1 == 49) { Local0 [0] = 0x1310 }
            ElseIf (Local1 == 50) { Local0 [0] = 0x1320 }
            ElseIf (Local1 == 51) { Local0 [0] = 0x1330 }
            ElseIf (Local1 == 52) { Local0 [0] = 0x1340 }
            ElseIf (Local1 == 53) { Local0 [0] = 0x1350 }
            ElseIf (Local1 == 54) { Local0 [0] = 0x1360 }
            ElseIf (Local1 == 55) { Local0 [0] = 0x1370 }
            ElseIf (Local1 == 56) { Local0 [0] = 0x1380 }
            ElseIf (Local1 == 57) { Local0 [0] = 0x1390 }
            ElseIf (Local1 == 58) { Local0 [0] = 0x13A0 }
            ElseIf (Local1 == 59) { Local0 [0] = 0x13B0 }
            Return (Local0)
        }
    }
}
