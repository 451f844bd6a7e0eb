package main

import (
	"fmt"
	"os"
	"text/tabwriter"
)

func printUnsafe(clones []clone) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\n   clone\tfirst random value\tTLS ticket key\t")
	for i, c := range clones {
		twin := ""
		if i > 0 && c.Random == clones[0].Random {
			twin = "the same as clone 0"
		}
		fmt.Fprintf(w, "   %d\t%s\t%s\t%s\n", i, c.Random, c.TicketKey, twin)
	}
	w.Flush()
}

func printSafe(clones []clone) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\n   clone\tVM generation id\tgeneration\tresume to READY\tfirst random value\tTLS ticket key\tpackets before release\tsevered")
	for i, c := range clones {
		fmt.Fprintf(w, "   %d\t%s\t%d\t%.0f ms\t%s\t%s\t%d\t%d\n", i, c.VMGenID, c.Generation, c.ReadyMS, c.Random, c.TicketKey, c.Early, c.Severed)
	}
	w.Flush()
}
