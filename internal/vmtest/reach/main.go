// Reach is the service of the test of clones on one network. On port 7777 it answers every connection with the host name; on port 7778 it
// asks all addresses that it was started with on their port 7777, and says what they answered and who this machine is.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

func main() {
	go serve(":7777", func(c net.Conn) {
		name, _ := os.Hostname()
		_, _ = io.WriteString(c, name)
	})
	serve(":7778", report)
}

func serve(address string, answer func(net.Conn)) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for {
		c, err := l.Accept()
		if err != nil {
			fmt.Println(err)
			continue
		}
		go func() {
			answer(c)
			_ = c.Close()
		}()
	}
}

func report(c net.Conn) {
	for _, to := range os.Args[1:] {
		fmt.Fprintln(c, to, ask(net.JoinHostPort(to, "7777")))
	}
	arp, _ := os.ReadFile("/proc/net/arp")
	for line := range strings.Lines(string(arp)) {
		if f := strings.Fields(line); len(f) > 5 && f[5] == "eth1" {
			fmt.Fprintln(c, "neighbour", f[0], f[3])
		}
	}
	for _, p := range []string{"/etc/machine-id", "/proc/sys/kernel/random/boot_id"} {
		text, err := os.ReadFile(p)
		if err != nil {
			text = []byte("missing")
		}
		fmt.Fprintln(c, p, strings.Join(strings.Fields(string(text)), " "))
	}
	addresses, _ := net.InterfaceAddrs()
	fmt.Fprintln(c, "addresses", addresses)
	fmt.Fprintln(c, "time", time.Now().Unix())
}

func ask(to string) string {
	var last error
	for range 5 {
		c, err := net.DialTimeout("tcp", to, 5*time.Second)
		if err != nil {
			last = err
			time.Sleep(time.Second)
			continue
		}
		b, err := io.ReadAll(c)
		_ = c.Close()
		if err == nil {
			return string(b)
		}
		last = err
	}
	return last.Error()
}
