package service

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

// account is who a service runs as.
type account struct {
	name   string // empty if only a number is known
	uid    uint32
	gid    uint32
	groups []uint32 // supplementary
	home   string   // "/" if unknown
}

// maxID keeps (uid_t)-1 out: chown(2) and setresuid(2) read it as "leave as it is".
const maxID = 1<<32 - 2

// lookupAccount resolves user ("name", "0", "name:group") and group against etc/passwd and
// etc/group of etc. Numbers need no entry, names do. It stands in for os/user, which with its
// cgo and NSS halves is too heavy and would not read the files of another root.
func lookupAccount(etc fs.FS, user, group string) (account, error) {
	if u, g, ok := strings.Cut(user, ":"); ok {
		user = u
		if group == "" {
			group = g
		}
	}
	a := account{home: "/"}
	if err := a.findUser(etc, user); err != nil {
		return a, err
	}
	groups, err := readTable(etc, "group", 4)
	if err != nil && group != "" && !isNumber(group) {
		return a, fmt.Errorf("group %q: %w", group, err)
	}
	if err := a.findGroup(groups, group); err != nil {
		return a, err
	}
	a.supplement(groups)
	return a, nil
}

func (a *account) findUser(etc fs.FS, user string) error {
	if user == "" {
		user = "0"
	}
	id, numeric := parseID(user)
	a.uid = id
	rows, err := readTable(etc, "passwd", 7)
	for _, row := range rows {
		uid, ok1 := parseID(row[2])
		gid, ok2 := parseID(row[3])
		if !ok1 || !ok2 || (numeric && uid != id) || (!numeric && row[0] != user) {
			continue
		}
		a.name, a.uid, a.gid = row[0], uid, gid
		if row[5] != "" {
			a.home = row[5]
		}
		return nil
	}
	if numeric {
		return nil
	}
	if err != nil {
		return fmt.Errorf("user %q: %w", user, err)
	}
	return fmt.Errorf("user %q: not in passwd; use a number or add it", user)
}

func (a *account) findGroup(rows [][]string, group string) error {
	if group == "" {
		return nil
	}
	if id, ok := parseID(group); ok {
		a.gid = id
		return nil
	}
	for _, row := range rows {
		if id, ok := parseID(row[2]); ok && row[0] == group {
			a.gid = id
			return nil
		}
	}
	return fmt.Errorf("group %q: not in group; use a number or add it", group)
}

func (a *account) supplement(rows [][]string) {
	if a.name == "" {
		return
	}
	for _, row := range rows {
		id, ok := parseID(row[2])
		if !ok || id == a.gid {
			continue
		}
		for _, member := range strings.Split(row[3], ",") {
			if member == a.name {
				a.groups = append(a.groups, id)
				break
			}
		}
	}
}

func readTable(etc fs.FS, name string, columns int) ([][]string, error) {
	data, err := fs.ReadFile(etc, name)
	if err != nil {
		return nil, err
	}
	return parseTable(data, columns), nil
}

// parseTable reads the lines of passwd(5) and group(5) that have exactly the given number of
// columns; comments and what NIS used to add are passed over, as the C library does.
func parseTable(data []byte, columns int) [][]string {
	var rows [][]string
	scan := bufio.NewScanner(bytes.NewReader(data))
	scan.Buffer(nil, 1<<20) // one line of group(5) may name thousands of members
	for scan.Scan() {
		line := scan.Text()
		if line == "" || line[0] == '#' || line[0] == '+' || line[0] == '-' {
			continue
		}
		if row := strings.Split(line, ":"); len(row) == columns {
			rows = append(rows, row)
		}
	}
	return rows
}

func isNumber(s string) bool {
	_, ok := parseID(s)
	return ok
}

func parseID(s string) (uint32, bool) {
	if s == "" || s[0] < '0' || s[0] > '9' {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > maxID {
		return 0, false
	}
	return uint32(n), true
}

// missing tells whether err is only that a file does not exist.
func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
