package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"

	"rouse/firewall"
	"rouse/quiesce/sockdiag"
)

// spacesArg makes this program the worker of the namespaces' suite.
const spacesArg = "namespace-worker"

// namespaces is how a look at the sockets and the gate grow with network namespaces, each joined to the guest's by a veth
// link, as containers are.
func namespaces(ctx context.Context, l *lab, r *Record) error {
	sizes := []int{1, 10, 100, 1000}
	if l.quick {
		sizes = sizes[:2]
	}
	for range l.repeat(3) {
		for _, n := range sizes {
			if err := l.worker(ctx, r, spacesArg, strconv.Itoa(n)); err != nil {
				return fmt.Errorf("%d namespaces: %w", n, err)
			}
		}
	}
	return nil
}

// What the others load to shut and to open: the same three chains of a guest.
const (
	nftShut = "table inet peer { chain i { type filter hook input priority 0; policy drop; iif lo accept; }\n" +
		"chain o { type filter hook output priority 0; policy drop; oif lo accept; }\nchain f { type filter hook forward priority 0; policy drop; }\n}\n"
	nftOpen = "delete table inet peer\n"
)

func spaceWorker(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	if err := errors.Join(ownRun(), loopback(), joined(n)); err != nil {
		return err
	}
	gate, err := firewall.New(firewall.Options{})
	if err != nil {
		return err
	}
	defer gate.Close()
	ins, err := sockdiag.New(sockdiag.Options{AllNamespaces: true})
	if err != nil {
		return err
	}
	defer ins.Close()
	cases := []struct {
		name, metric string
		do           func() error
	}{
		{"rouse", "look", func() error { _, err := ins.Busy(context.Background()); return err }},
		{"ss in each", "look", func() error { return program("ip", "-all", "netns", "exec", "ss", "-tanH")() }},
		{"rouse", "shut", func() error { return gate.Set(firewall.Shut) }},
		{"rouse", "open", func() error { return gate.Set(firewall.Open) }},
		{"nft -f", "shut", func() error { return nft(nftShut) }},
		{"nft -f", "open", func() error { return nft(nftOpen) }},
	}
	for i := range lookTimes + 1 {
		for _, c := range cases {
			took, err := costs(c.do)
			if err != nil {
				return fmt.Errorf("%s: %s: %w", c.name, c.metric, err)
			}
			if i > 0 {
				took.print(c.name, n, c.metric)
			}
		}
	}
	fmt.Println("done")
	return nil
}

// joined makes n namespaces.
func joined(n int) error {
	var spaces, links strings.Builder
	for i := range n {
		fmt.Fprintf(&spaces, "netns add n%d\n", i)
		fmt.Fprintf(&links, "link add v%d type veth peer name eth0 netns n%d\nlink set v%d up\n", i, i, i)
	}
	return errors.Join(ip(spaces.String()), ip(links.String()))
}

func nft(rules string) error {
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, out)
	}
	return nil
}
