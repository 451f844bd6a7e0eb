package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// script is a guest that reads lines and answers them as told.
func script(t *testing.T, answer func(line string, w io.Writer)) *Client {
	host, guest := net.Pipe()
	c := NewClient(host)
	t.Cleanup(func() { c.Close(); guest.Close() })
	go func() {
		r := bufio.NewReader(guest)
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			answer(line, guest)
		}
	}()
	return c
}

// connect joins a client and a server by a pipe.
func connect(t *testing.T, s *Server) *Client {
	host, guest := net.Pipe()
	c := NewClient(host)
	ctx, cancel := context.WithCancel(context.Background())
	go s.serve(ctx, guest, false)
	t.Cleanup(func() { cancel(); c.Close(); guest.Close() })
	return c
}

func TestClientAndServer(t *testing.T) {
	c, ctx := connect(t, NewServer(&fakeGuest{}, ServerOptions{Version: "7"})), t.Context()
	if err := c.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	var info struct{ Version string }
	if err := c.Do(ctx, "guest-info", nil, &info); err != nil || info.Version != "7" {
		t.Errorf("got %+v, %v", info, err)
	}
	var lines []string
	if err := c.Do(ctx, "rouse-log", map[string]any{"service": "web", "lines": 5}, &lines); err != nil || len(lines) != 1 || lines[0] != "web5" {
		t.Errorf("got %q, %v", lines, err)
	}
	var ce *CommandError
	if err := c.Do(ctx, "guest-fly", nil, nil); !errors.As(err, &ce) || ce.Class != ClassNotFound {
		t.Errorf("got %v, want CommandNotFound", err)
	}
}

func TestClientErrorKinds(t *testing.T) {
	for _, k := range []struct {
		name             string
		err              error
		timeout, refused bool
	}{
		{"failed", errors.New("hook"), false, false},
		{"timed out", context.DeadlineExceeded, true, false},
		{"refused", ErrRefused, false, true},
	} {
		g := &fakeGuest{release: func(context.Context) (json.RawMessage, error) { return nil, k.err }}
		err := connect(t, NewServer(g, ServerOptions{})).Do(t.Context(), "rouse-release", nil, nil)
		if errors.Is(err, ErrTimeout) != k.timeout || errors.Is(err, ErrRefused) != k.refused || err == nil {
			t.Errorf("%s: got %v", k.name, err)
		}
	}
}

// TestClientFindsItsPlaceAgain: a call that timed out leaves an answer on its way; the next call syncs first and gets
// its own answer.
func TestClientFindsItsPlaceAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late := func(ctx context.Context) (json.RawMessage, error) {
			time.Sleep(5 * time.Second)
			return json.RawMessage(`"late"`), nil
		}
		c := connect(t, NewServer(&fakeGuest{release: late}, ServerOptions{}))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Do(ctx, "rouse-release", nil, nil); !errors.Is(err, ErrTimeout) {
			t.Errorf("got %v, want a time-out", err)
		}
		var status string
		if err := c.Do(t.Context(), "guest-fsfreeze-status", nil, &status); err != nil || status != "thawed" {
			t.Errorf("got %q, %v", status, err)
		}
		c.Close()
		time.Sleep(time.Hour)
	})
}

// TestClientSkipsGarbage: what an earlier conversation left on a port is no answer.
func TestClientSkipsGarbage(t *testing.T) {
	c := script(t, func(line string, w io.Writer) {
		line = strings.TrimPrefix(line, "\xff")
		id := line[strings.LastIndex(line, ":")+1 : strings.Index(line, "}")]
		io.WriteString(w, "turn\": 5}\n{\"return\":\"stale\",\"id\":99}\n{\"return\":"+id+"}\n\xff{\"return\":0}\n\xff{\"return\":"+id+"}\n")
	})
	if err := c.Sync(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestClientOfMuteGuest: a guest that does not even read holds no call beyond its context.
func TestClientOfMuteGuest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host, guest := net.Pipe()
		defer guest.Close()
		c := NewClient(host)
		defer c.Close()
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if err := c.Do(ctx, "guest-ping", nil, nil); !errors.Is(err, ErrTimeout) {
				t.Errorf("got %v, want a time-out", err)
			}
			cancel()
		}
		begin := time.Now()
		if err := c.Do(context.Background(), "guest-ping", nil, nil); !errors.Is(err, ErrTimeout) || time.Since(begin) != DefaultTimeout {
			t.Errorf("without deadline: %v after %v, want a time-out after %v", err, time.Since(begin), DefaultTimeout)
		}
	})
}

func TestClientCancelled(t *testing.T) {
	c := script(t, func(string, io.Writer) {})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Do(ctx, "guest-ping", nil, nil); !errors.Is(err, context.Canceled) || errors.Is(err, ErrTimeout) {
		t.Errorf("got %v, want cancelled", err)
	}
}

func TestClientOfClosedConnection(t *testing.T) {
	host, guest := net.Pipe()
	c := NewClient(host)
	guest.Close()
	if err := c.Do(t.Context(), "guest-ping", nil, nil); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("got %v, want the end of the connection", err)
	}
	c.Close()
	if err := c.Sync(t.Context()); err == nil {
		t.Error("sync on a closed client worked")
	}
}
