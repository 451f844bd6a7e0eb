package main

import (
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"rouse/genid/sysgenid"
	"rouse/internal/fmt"
	"rouse/internal/json"
)

// A device that `rousectl sysgenid serve` serves tells its watchers on an abstract unix socket named after
// its path: whoever connects gets one JSON list. The kernel's table of watchers can be seen by nobody
// else, and a file beside the device would outlive a killed server.

// watcherSocket is the socket of the device at path.
func watcherSocket(path string) (*unix.SockaddrUnix, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	return &unix.SockaddrUnix{Name: "@rouse/watchers" + absolute}, nil
}

// tellWatchers answers until the process ends.
func tellWatchers(path string, watchers func() []sysgenid.Watcher) error {
	address, err := watcherSocket(path)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Bind(fd, address); err != nil {
		unix.Close(fd)
		return fmt.Errorf("watchers of %s: %w", path, err)
	}
	if err := unix.Listen(fd, 8); err != nil {
		unix.Close(fd)
		return err
	}
	go func() {
		for {
			c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
			if err != nil {
				// Out of descriptors, or a client that has gone: the next one may do better.
				time.Sleep(10 * time.Millisecond)
				continue
			}
			answerWatchers(os.NewFile(uintptr(c), "watchers"), watchers())
		}
	}()
	return nil
}

func answerWatchers(c *os.File, list []sysgenid.Watcher) {
	defer c.Close()
	// A client that does not read must not keep others waiting.
	timeout := unix.Timeval{Sec: 1}
	if err := unix.SetsockoptTimeval(int(c.Fd()), unix.SOL_SOCKET, unix.SO_SNDTIMEO, &timeout); err != nil {
		return
	}
	if list == nil {
		list = []sysgenid.Watcher{}
	}
	_ = json.Write(c, list, false) // the client has gone
}

// askWatchers prints the watchers of the device at path. That of PID 1 is asked for over its own socket.
func askWatchers(path string, asJSON bool, out io.Writer) error {
	address, err := watcherSocket(path)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	c := os.NewFile(uintptr(fd), "watchers")
	defer c.Close()
	if err := unix.Connect(fd, address); err != nil {
		return fmt.Errorf("watchers of %s: %w; is it served by `rousectl sysgenid serve`? That of PID 1 tells by `rousectl watchers`", path, err)
	}
	text, err := io.ReadAll(c)
	if err != nil {
		return err
	}
	var list []sysgenid.Watcher
	if err := json.Unmarshal(text, &list); err != nil {
		return fmt.Errorf("watchers of %s: %w", path, err)
	}
	return show(out, asJSON, list, func() {
		for _, w := range list {
			state := "not tracked"
			switch {
			case w.Tracked && w.OutdatedSince.IsZero():
				state = "up to date"
			case w.Tracked:
				state = fmt.Sprintf("late by %v", time.Since(w.OutdatedSince).Round(time.Millisecond))
			}
			fmt.Fprintf(out, "%s[%d] uid %d: acknowledged %d, %s\n", w.Comm, w.PID, w.UID, w.Acknowledged, state)
		}
	})
}
