package sysgenid

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
)

// Wait returns the current generation as soon as it is another than the one
// acknowledged last (at first: the one at Open), and else waits for that.
func (c *Client) Wait(ctx context.Context) (uint32, error) {
	for {
		if err := ctx.Err(); err != nil {
			return c.Generation(), context.Cause(ctx)
		}
		c.mu.Lock()
		acked, device, closed := c.acked, c.device, c.closed
		c.mu.Unlock()
		if closed {
			return c.Generation(), fmt.Errorf("wait for %s: %w", c.path, ErrClosed)
		}
		if gen := c.Generation(); gen != acked {
			return gen, nil
		}
		gen, err := c.block(ctx, device, acked)
		if err != nil || gen != acked {
			return gen, err
		}
	}
}

// block waits until there may be another generation than acked, and returns
// what it then is.
func (c *Client) block(ctx context.Context, device *os.File, acked uint32) (uint32, error) {
	var err error
	if s := c.join(); s != nil {
		err = c.sleep(ctx, s, device, acked)
		return c.Generation(), err
	}
	switch c.kind {
	case kindAbsent:
		_, err = c.poll(ctx, nil)
	case kindFile:
		err = c.blockFile(ctx, acked)
	default:
		return c.blockDevice(ctx, device)
	}
	return c.Generation(), err
}

// blockDevice asks the device itself if the page shows nothing new.
func (c *Client) blockDevice(ctx context.Context, device *os.File) (uint32, error) {
	ready, err := c.poll(ctx, device)
	if err != nil || !ready {
		return c.Generation(), err
	}
	var b [4]byte
	err = control(device, func(fd uintptr) error {
		_, err := unix.Read(int(fd), b[:])
		return err
	})
	switch {
	case err == nil:
		return binary.NativeEndian.Uint32(b[:]), nil
	case isDead(err):
		err = c.renew(ctx, device)
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR), errors.Is(err, ErrClosed):
		err = nil // somebody acknowledged, or Wait will see what there is
	}
	return c.Generation(), err
}

// renew attaches to the server's next connection, or else waits a little.
func (c *Client) renew(ctx context.Context, device *os.File) error {
	err := c.reattach(device)
	if err != nil && !errors.Is(err, ErrClosed) {
		err = c.pause(ctx)
	}
	return err
}

// pause is how often a client looks for a server that is gone.
func (c *Client) pause(ctx context.Context) error {
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := c.poll(short, nil); err != nil && ctx.Err() != nil {
		return err
	}
	return nil
}

// poll waits for file, Close, or the context, in a thread of its own.
func (c *Client) poll(ctx context.Context, file *os.File) (ready bool, err error) {
	fds := make([]unix.PollFd, 0, 3)
	cancel, stop, err := eventOf(ctx)
	if err != nil {
		return false, err
	}
	defer stop()
	err = control(c.ended, func(ended uintptr) error {
		fds = append(fds,
			unix.PollFd{Fd: int32(ended), Events: unix.POLLIN},
			unix.PollFd{Fd: int32(cancel), Events: unix.POLLIN})
		if file == nil {
			return pollAll(fds)
		}
		return control(file, func(fd uintptr) error {
			fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
			return pollAll(fds)
		})
	})
	switch {
	case errors.Is(err, ErrClosed): // the loop finds out which
		return false, nil
	case err != nil:
		return false, wrap("wait for "+c.path, err)
	case ctx.Err() != nil:
		return false, context.Cause(ctx)
	}
	return len(fds) == 3 && fds[2].Revents != 0, nil
}

func pollAll(fds []unix.PollFd) error {
	for {
		_, err := unix.Poll(fds, -1)
		if err != unix.EINTR {
			return err
		}
	}
}

// eventOf returns a descriptor that becomes readable when the context ends, -1
// if it never does.
func eventOf(ctx context.Context) (fd int, stop func(), err error) {
	if ctx.Done() == nil {
		return -1, func() {}, nil
	}
	fd, err = unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return -1, nil, wrap("eventfd", err)
	}
	one := binary.NativeEndian.AppendUint64(nil, 1)
	written := make(chan struct{})
	unlisten := context.AfterFunc(ctx, func() {
		_, _ = unix.Write(fd, one)
		close(written)
	})
	return fd, func() {
		if !unlisten() {
			<-written
		}
		unix.Close(fd)
	}, nil
}

// blockFile waits for the write(2) that the server makes after a store.
func (c *Client) blockFile(ctx context.Context, acked uint32) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return wrap("wait for "+c.path, err)
	}
	events := os.NewFile(uintptr(fd), "inotify")
	defer events.Close()
	if _, err := unix.InotifyAddWatch(fd, c.path, unix.IN_MODIFY); err != nil {
		return wrap("wait for "+c.path, err)
	}
	if c.Generation() != acked { // it came before the watch
		return nil
	}
	_, err = c.poll(ctx, events)
	return err
}
