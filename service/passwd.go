package service

import (
	"errors"
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

// lookupAccount resolves user ("name", "0", "name:group"), group and more groups against passwd and group of etc. Numbers need no entry, names do. It
// stands in for os/user, which with its cgo and NSS halves is too heavy and would not read the files
// of another root. Which groups there are follows the OCI image specification (config.md, "User").
func lookupAccount(etc fs.FS, user, group string, more ...string) (account, error) {
	user, own, _ := strings.Cut(user, ":")
	setString(&group, own)
	a := account{home: "/"}
	if err := a.findUser(etc, user); err != nil {
		return a, err
	}
	groups, err := readTable(etc, "group", 4)
	if group != "" {
		if a.gid, err = findGroup(groups, group, err); err != nil {
			return a, err
		}
	} else if a.name != "" {
		a.supplement(groups)
	}
	for _, name := range more {
		gid, err := findGroup(groups, name, err)
		if err != nil {
			return a, err
		}
		a.groups = append(a.groups, gid)
	}
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
	switch {
	case numeric:
		return nil
	case err != nil:
		return about("user", user, err)
	}
	return wrong("user", user, "not in passwd; use a number or add it")
}

// findGroup returns the number of group; unread is why there are no rows, if so.
func findGroup(rows [][]string, group string, unread error) (uint32, error) {
	if id, ok := parseID(group); ok {
		return id, nil
	}
	for _, row := range rows {
		if id, ok := parseID(row[2]); ok && row[0] == group {
			return id, nil
		}
	}
	if unread != nil {
		return 0, about("group", group, unread)
	}
	return 0, wrong("group", group, "not in group; use a number or add it")
}

func (a *account) supplement(rows [][]string) {
	for _, row := range rows {
		id, ok := parseID(row[2])
		if ok && id != a.gid && contains(strings.Split(row[3], ","), a.name) {
			a.groups = append(a.groups, id)
		}
	}
}

func readTable(etc fs.FS, name string, columns int) ([][]string, error) {
	data, err := fs.ReadFile(etc, name)
	return parseTable(string(data), columns), err
}

// parseTable reads the lines of passwd(5) and group(5) that have exactly the given number of
// columns; comments and what NIS used to add are passed over, as the C library does.
func parseTable(text string, columns int) [][]string {
	var rows [][]string
	for _, line := range strings.Split(text, "\n") {
		if line == "" || strings.IndexByte("#+-", line[0]) >= 0 {
			continue
		}
		if row := strings.Split(line, ":"); len(row) == columns {
			rows = append(rows, row)
		}
	}
	return rows
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
