// Command ctlguest is the inside of the tests of rousectl: a service to be acted upon, and a driver that runs
// guest commands and prints what came of each.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"rouse/control"
)

const rousectl = "/sbin/rousectl"

func main() {
	switch os.Args[1] {
	case "worker":
		worker()
	case "id":
		id()
	case "end": // of all programs of guest-exec
		_ = os.WriteFile("/sys/fs/cgroup/exec/cgroup.kill", []byte("1"), 0)
	case "notify":
		if err := control.Notify(os.Args[2], control.Ready); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	case "drive":
		// PID 1 may begin to listen a little after its first service has started.
		for exec.Command(rousectl, "status").Run() != nil {
			time.Sleep(50 * time.Millisecond)
		}
		for _, line := range os.Args[2:] {
			drive(strings.Fields(line))
		}
		fmt.Println("driven")
	}
}

// worker prints each SIGUSR1 that it gets.
func worker() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGUSR1)
	_ = os.WriteFile("/tmp/private", nil, 0o644) // in a /tmp of its own, which those who join it see
	fmt.Println("worker up")
	for n := 1; ; n++ {
		<-c
		fmt.Println("signal", n)
	}
}

// id prints what this process is.
func id() {
	cgroup, _ := os.ReadFile("/proc/self/cgroup")
	dir, _ := os.Getwd()
	groups, _ := os.Getgroups()
	status, _ := os.ReadFile("/proc/self/status")
	nnp := ""
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "NoNewPrivs:") || strings.HasPrefix(line, "CapBnd:") {
			nnp += strings.Join(strings.Fields(line), "")
		}
	}
	_, err := os.Stat("/tmp/private")
	fmt.Printf("id uid=%d gid=%d groups=%v dir=%s mark=%s cgroup=%s %s private=%v\n", os.Getuid(), os.Getgid(), groups, dir, os.Getenv("MARK"),
		strings.TrimSpace(string(cgroup)), nnp, err == nil)
}

func drive(words []string) {
	fmt.Println("$", strings.Join(words, " "))
	name := rousectl
	switch words[0] {
	case "follow":
		follow(words[1])
		return
	case "self":
		name, words = "/proc/self/exe", words[1:]
	}
	out, err := exec.Command(name, words...).CombinedOutput()
	status := 0
	if e := (*exec.ExitError)(nil); errors.As(err, &e) {
		status = e.ExitCode()
	} else if err != nil {
		out = append(out, err.Error()...)
	}
	fmt.Printf("%s\n= %d\n", strings.TrimRight(string(out), "\n"), status)
}

// follow makes a service print two lines, the second when the first has come by a follower of its log.
func follow(name string) {
	print := func() bool {
		text, err := exec.Command(rousectl, "signal", name, "USR1").CombinedOutput()
		if err != nil {
			fmt.Printf("%s%v\n", text, err)
		}
		return err == nil
	}
	if !print() {
		return
	}
	cmd := exec.Command(rousectl, "logs", "-f", "-n", "1", name)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	s := bufio.NewScanner(out)
	if s.Scan() && print() && s.Scan() {
		fmt.Println("followed:", s.Text())
	}
}
