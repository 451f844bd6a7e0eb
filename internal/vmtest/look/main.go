// Look is a service of the boot tests: it says what the machine looks like to a service, one fact in a line.
package main

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	fmt.Println("root", rootMount())
	fmt.Println("write", attempt("/var/lib/proof"))
	fmt.Println("tmp", attempt("/tmp/proof"))
	for _, p := range os.Args[1:] {
		fmt.Println(p, content(p))
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err == nil {
		fmt.Println("hostname", unix.ByteSliceToString(u.Nodename[:]))
	}
}

// rootMount is the type of the topmost mount at /, and whether it is rw or ro.
func rootMount() string {
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err.Error()
	}
	found := "nothing"
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 3 && f[1] == "/" {
			options, _, _ := strings.Cut(f[3], ",")
			found = f[2] + " " + options
		}
	}
	return found
}

func attempt(path string) string {
	err := os.MkdirAll(path, 0o755)
	if err == nil {
		err = os.WriteFile(path+"/file", []byte("x"), 0o600)
	}
	if err != nil {
		return "refused"
	}
	return "ok"
}

func content(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return "missing"
	}
	return strings.ReplaceAll(strings.TrimSpace(string(text)), "\n", "|")
}
