package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// As much of D-Bus as a generation counter over it needs (D-Bus Specification 0.41): one service that sends
// a signal, and watchers that answer it with a method call each.

const busConfig = `<busconfig><type>session</type><listen>unix:path=%s</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy>
<limit name="max_completed_connections">20000</limit><limit name="max_connections_per_user">20000</limit>
<limit name="max_incomplete_connections">20000</limit><limit name="max_replies_per_connection">20000</limit>
<limit name="max_match_rules_per_connection">100</limit></busconfig>`

const (
	busCall, busReturn, busError, busSignal = 1, 2, 3, 4
	busName                                 = "bench.Generation"
	busDaemon                               = "org.freedesktop.DBus"
)

// busConn is a connection; calls on it are made one after the other.
type busConn struct {
	conn   *os.File
	r      *bufio.Reader
	serial uint32
	// path and iface are what methods are called on, but for those of the bus itself.
	path, iface string
}

// message is what of a received message matters here.
type message struct {
	kind   byte
	serial uint32
	sender string
	body   []byte
}

func dialBus(path string) (*busConn, error) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return nil, err
	}
	// A blocking descriptor, so that a waiting watcher is a thread, as one of the device is, and as a
	// process of its own would be.
	f, err := conn.(*net.UnixConn).File()
	if err != nil {
		return nil, err
	}
	conn.Close()
	c := &busConn{conn: f, r: bufio.NewReader(f), path: "/bench", iface: busName}
	uid := hex.EncodeToString([]byte(strconv.Itoa(os.Getuid())))
	if _, err := fmt.Fprintf(f, "\x00AUTH EXTERNAL %s\r\n", uid); err != nil {
		return nil, err
	}
	if line, err := c.r.ReadString('\n'); err != nil || !strings.HasPrefix(line, "OK") {
		return nil, fmt.Errorf("bus: %q: %w", line, errors.Join(err, io.ErrUnexpectedEOF))
	}
	if _, err := io.WriteString(f, "BEGIN\r\n"); err != nil {
		return nil, err
	}
	return c, c.call(busDaemon, "Hello", "", nil)
}

func align(b []byte, n int) []byte {
	for len(b)%n != 0 {
		b = append(b, 0)
	}
	return b
}

func appendString(b []byte, s string) []byte {
	b = binary.LittleEndian.AppendUint32(align(b, 4), uint32(len(s)))
	return append(append(b, s...), 0)
}

// field appends a header field: its code, and a variant of a string-like type.
func field(b []byte, code, kind byte, value string) []byte {
	b = append(align(b, 8), code, 1, kind, 0)
	if kind == 'g' {
		return append(append(append(b, byte(len(value))), value...), 0)
	}
	return appendString(b, value)
}

func (c *busConn) send(kind byte, to, member, signature string, reply uint32, body []byte) error {
	c.serial++
	fields := []byte{}
	if kind != busReturn {
		fields = field(fields, 1, 'o', c.path)
		if to == busDaemon {
			fields = field(fields, 2, 's', busDaemon)
		} else {
			fields = field(fields, 2, 's', c.iface)
		}
		fields = field(fields, 3, 's', member)
	} else {
		fields = append(align(fields, 8), 5, 1, 'u', 0)
		fields = binary.LittleEndian.AppendUint32(align(fields, 4), reply)
	}
	if to != "" {
		fields = field(fields, 6, 's', to)
	}
	if signature != "" {
		fields = field(fields, 8, 'g', signature)
	}
	m := []byte{'l', kind, 0, 1}
	m = binary.LittleEndian.AppendUint32(m, uint32(len(body)))
	m = binary.LittleEndian.AppendUint32(m, c.serial)
	m = binary.LittleEndian.AppendUint32(m, uint32(len(fields)))
	// The fields are aligned to 8 from the message's start, and begin at 16.
	_, err := c.conn.Write(append(align(append(m, fields...), 8), body...))
	return err
}

// call waits for the reply; signals that come before it are dropped.
func (c *busConn) call(to, member, argument string, body []byte) error {
	signature := ""
	if argument != "" {
		body, signature = appendString(nil, argument), "s"
	}
	if member == "RequestName" {
		body, signature = binary.LittleEndian.AppendUint32(align(body, 4), 0), "su"
	}
	if member == "Acknowledge" {
		signature = "u"
	}
	if err := c.send(busCall, to, member, signature, 0, body); err != nil {
		return err
	}
	for {
		m, err := c.receive()
		if err != nil {
			return err
		}
		if m.kind == busError {
			return fmt.Errorf("bus: %s: %q", member, m.body)
		}
		if m.kind == busReturn {
			return nil
		}
	}
}

func (c *busConn) receive() (message, error) {
	head := make([]byte, 16)
	if _, err := io.ReadFull(c.r, head); err != nil {
		return message{}, err
	}
	size := int(binary.LittleEndian.Uint32(head[12:]))
	rest := make([]byte, (size+7)/8*8+int(binary.LittleEndian.Uint32(head[4:])))
	if _, err := io.ReadFull(c.r, rest); err != nil {
		return message{}, err
	}
	m := message{kind: head[1], serial: binary.LittleEndian.Uint32(head[8:]), body: rest[(size+7)/8*8:]}
	for i := 0; i+8 <= size; i = (i + 7) / 8 * 8 {
		code, kind := rest[i], rest[i+2]
		i += 4
		switch kind {
		case 'g':
			i += int(rest[i]) + 2
		case 'u':
			i += 4
		default:
			n := int(binary.LittleEndian.Uint32(rest[i:]))
			if code == 7 {
				m.sender = string(rest[i+4 : i+4+n])
			}
			i += 4 + n + 1
		}
	}
	return m, nil
}

// bus is a private dbus-daemon.
func (l *lab) bus(ctx context.Context, n int) (path string, end func(), err error) {
	path = filepath.Join(l.dir, fmt.Sprintf("bus%d", n))
	config := path + ".conf"
	if err := os.WriteFile(config, fmt.Appendf(nil, busConfig, path), 0o644); err != nil {
		return "", nil, err
	}
	daemon := exec.CommandContext(ctx, "dbus-daemon", "--config-file="+config, "--nofork", "--nopidfile", "--nosyslog")
	if err := daemon.Start(); err != nil {
		return "", nil, fmt.Errorf("%w (Debian: dbus-daemon)", err)
	}
	end = func() {
		_ = daemon.Process.Kill()
		_ = daemon.Wait()
	}
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if conn, err := net.Dial("unix", path); err == nil {
			conn.Close()
			return path, end, nil
		}
	}
	end()
	return "", nil, errors.New("dbus-daemon did not listen")
}
