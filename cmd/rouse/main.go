// Command rouse is the host side: it builds images, bakes them into snapshots and clones those.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

// version is set by the build.
var version = "unreleased"

// cli is the command line; kong makes help and errors of it.
type cli struct {
	JSON    bool             `help:"Print one JSON object a line on standard output, and nothing else there."`
	Version kong.VersionFlag `help:"Print the version."`

	Build  buildMachineCommand `cmd:"" help:"Make a bootable image from a program, a folder or a container image. Needs no root."`
	Bake   bakeCommand         `cmd:"" help:"Boot an image, wait for its services, quiesce it, and write a snapshot."`
	Clone  cloneCommand        `cmd:"" help:"Start clones of a snapshot, each with a generation of its own, and wait until each is safe."`
	Export exportCommand       `cmd:"" help:"Write a snapshot as one file."`
	Import importCommand       `cmd:"" help:"Make a snapshot folder of such a file."`
	Push   pushCommand         `cmd:"" help:"Send a snapshot to a container registry."`
	Pull   pullCommand         `cmd:"" help:"Fetch a snapshot from a container registry."`
	Verify verifyCommand       `cmd:"" help:"Clone a snapshot or image twice and show what the clones share and must not. Exit status 1 if there is anything."`
	Report reportCommand       `cmd:"" help:"Show reports of quiesces and adjusts as a timeline, a picture or a page."`
	PS     psCommand           `cmd:"" name:"ps" help:"List running clones."`
	Logs   logsCommand         `cmd:"" help:"Show the console of a clone."`
	Stop   stopCommand         `cmd:"" help:"Shut clones down."`
	RM     rmCommand           `cmd:"" name:"rm" help:"Remove clones that have ended from the list, with their consoles."`

	Completion completionCommand `cmd:"" help:"Print a shell's completion script."`
	Man        manCommand        `cmd:"" help:"Print or write manual pages."`

	Doctor doctorCommand `cmd:"" help:"Tell what a kernel offers, and if snapshots would be safe on it."`
}

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "rouse:", err)
		os.Exit(1)
	}
}

func run(args []string, out, diag io.Writer) error {
	var c cli
	parser, err := kong.New(&c, kong.Name("rouse"), kong.Vars{"version": version},
		kong.Description("Boots a snapshotted microVM safely: every clone gets its own random pool, keys and connections before it may speak."),
		kong.Writers(out, diag))
	if err != nil {
		return err
	}
	k, err := parser.Parse(args)
	if err != nil {
		return err
	}
	// The first signal ends what is under way in order; QEMU's ends with us.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	context.AfterFunc(ctx, stop) // the second one ends this process at once
	return k.Run(&session{ctx: ctx, out: out, ui: newUI(diag, c.JSON), json: c.JSON})
}

// session is what every command gets.
type session struct {
	ctx  context.Context
	out  io.Writer
	ui   *ui
	json bool
}
