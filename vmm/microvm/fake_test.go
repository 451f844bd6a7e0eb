package microvm

import (
	"bufio"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

//go:embed testdata
var descriptions embed.FS // the fake runs in other folders

// schema is a vendor's table, see testdata.
type schema struct {
	requests map[string]string // "PUT /path" to a body's name
	bodies   map[string][]field
}

type field struct {
	name, kind string
	required   bool
}

func readSchema(name string) (schema, error) {
	s := schema{map[string]string{}, map[string][]field{}}
	text, err := descriptions.ReadFile("testdata/" + name)
	if err != nil {
		return s, err
	}
	for line := range strings.Lines(string(text)) {
		w := strings.Fields(line)
		switch {
		case len(w) == 0 || w[0] == "#":
		case strings.HasPrefix(w[1], "/"):
			s.requests[w[0]+" "+w[1]] = w[2]
		default:
			s.bodies[w[0]] = readFields(w[1:])
		}
	}
	return s, nil
}

func readFields(words []string) (list []field) {
	for _, w := range words {
		name, kind, _ := strings.Cut(w, ":")
		required := strings.HasSuffix(name, "!")
		list = append(list, field{strings.TrimSuffix(name, "!"), kind, required})
	}
	return list
}

// check says what is wrong with a value of that kind.
func (s schema) check(kind string, v any) error {
	if item, ok := strings.CutPrefix(kind, "[]"); ok {
		list, ok := v.([]any)
		if !ok {
			return fmt.Errorf("%v is no array", v)
		}
		for _, e := range list {
			if err := s.check(item, e); err != nil {
				return err
			}
		}
		return nil
	}
	if fields, ok := s.bodies[kind]; ok {
		return s.checkBody(kind, fields, v)
	}
	ok := false
	switch kind {
	case "any":
		ok = true
	case "string":
		_, ok = v.(string)
	case "number":
		_, ok = v.(float64)
	case "bool":
		_, ok = v.(bool)
	default:
		text, isText := v.(string)
		ok = isText && slices.Contains(strings.Split(kind, "|"), text)
	}
	if !ok {
		return fmt.Errorf("%v is no %s", v, kind)
	}
	return nil
}

func (s schema) checkBody(kind string, fields []field, v any) error {
	o, ok := v.(map[string]any)
	if !ok {
		return fmt.Errorf("%s: %v is no object", kind, v)
	}
	for name, value := range o {
		i := slices.IndexFunc(fields, func(f field) bool { return f.name == name })
		if i < 0 {
			return fmt.Errorf("%s has no field %s", kind, name)
		}
		if err := s.check(fields[i].kind, value); err != nil {
			return fmt.Errorf("%s.%s: %w", kind, name, err)
		}
	}
	for _, f := range fields {
		if _, ok := o[f.name]; f.required && !ok {
			return fmt.Errorf("%s: no %s", kind, f.name)
		}
	}
	return nil
}

// route finds the request's body, with {id} for a path's last part.
func (s schema) route(method, path string) (string, bool) {
	if body, ok := s.requests[method+" "+path]; ok {
		return body, true
	}
	body, ok := s.requests[method+" "+path[:strings.LastIndex(path, "/")+1]+"{id}"]
	return body, ok
}

// fake is a VMM that takes nothing but what its vendor's description names, in an order that its vendor allows,
// with a guest behind its vsock socket.
type fake struct {
	schema
	kind  string
	mu    sync.Mutex
	state string // "", running, paused
	vsock string
	tap   string
	port  uint32
}

// fakeMain is the program. It is told how to misbehave by its environment.
func fakeMain(args []string) error {
	kind, socket := Firecracker, ""
	for i, a := range args {
		switch a {
		case "--api-sock":
			socket = args[i+1]
		case "--api-socket":
			kind, socket = CloudHypervisor, strings.TrimPrefix(args[i+1], "path=")
		}
	}
	s, err := readSchema(kind + ".txt")
	if err != nil {
		return err
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	f := &fake{schema: s, kind: kind, port: VsockPort}
	return http.Serve(l, f)
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.handle(r)
	if log := os.Getenv("FAKE_LOG"); log != "" {
		file, _ := os.OpenFile(log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		fmt.Fprintf(file, "%s %s: %v\n", r.Method, r.URL.Path, err)
		file.Close()
	}
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		json.NewEncoder(w).Encode(map[string]string{"fault_message": err.Error()})
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (f *fake) handle(r *http.Request) error {
	body, ok := f.route(r.Method, r.URL.Path)
	if !ok {
		return fmt.Errorf("no request %s %s", r.Method, r.URL.Path)
	}
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	var v any
	if body == "-" && len(text) > 0 {
		return errors.New("a body where there is none")
	}
	if body != "-" {
		if err := json.Unmarshal(text, &v); err != nil {
			return err
		}
		if err := f.check(body, v); err != nil {
			return err
		}
	}
	o, _ := v.(map[string]any)
	return f.act(r.Method+" "+strings.TrimPrefix(r.URL.Path, "/api/v1"), o)
}

// act keeps the order that both vendors document: configure, boot, pause, snapshot; load on a fresh VMM, resume.
func (f *fake) act(what string, o map[string]any) error {
	switch {
	case what == "PUT /vsock":
		f.vsock = o["uds_path"].(string)
	case what == "PUT /vm.create":
		if v, ok := o["vsock"].(map[string]any); ok {
			f.vsock = v["socket"].(string)
		}
	case what == "PUT /actions", what == "PUT /vm.boot":
		return f.turn("", "running")
	case what == "PATCH /vm" && o["state"] == "Paused", what == "PUT /vm.pause":
		return f.turn("running", "paused")
	case what == "PATCH /vm", what == "PUT /vm.resume":
		return f.turn("paused", "running")
	case what == "PUT /snapshot/create":
		return f.save(o["snapshot_path"].(string), o["mem_file_path"].(string))
	case what == "PUT /vm.snapshot":
		dir := strings.TrimPrefix(o["destination_url"].(string), "file://")
		return f.save(filepath.Join(dir, "state.json"), filepath.Join(dir, "memory-ranges"), filepath.Join(dir, chConfigFile))
	case what == "PUT /snapshot/load":
		if v, ok := o["vsock_override"].(map[string]any); ok {
			f.vsock = v["uds_path"].(string)
		}
		return f.load(o["snapshot_path"].(string), o["resume_vm"])
	case what == "PUT /vm.restore":
		return f.restore(strings.TrimPrefix(o["source_url"].(string), "file://"), o["resume"])
	case what == "PUT /mmds" && f.state == "running":
		return errors.New("the guest runs already and may have read its metadata")
	}
	return nil
}

func (f *fake) turn(from, to string) error {
	if f.state != from {
		return fmt.Errorf("state is %q, want %q", f.state, from)
	}
	f.state = to
	if to == "running" {
		return f.serveGuest()
	}
	return nil
}

func (f *fake) save(paths ...string) error {
	if f.state != "paused" {
		return errors.New("not paused")
	}
	for _, p := range paths {
		text := []byte("snapshot")
		if filepath.Base(p) == chConfigFile {
			text = []byte(`{"vsock":{"cid":3,"socket":"` + f.vsock + `"},"net":[{"id":"eth0","tap":"tap0","kept":1}],"unknown":{"kept":true}}`)
		}
		if err := os.WriteFile(p, text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (f *fake) load(state string, resume any) error {
	if f.state != "" || resume == true {
		return errors.New("not fresh, or it would run before it has its metadata")
	}
	if _, err := os.Stat(state); err != nil {
		return err
	}
	f.state = "paused"
	return nil
}

// restore finds the sockets in the configuration beside the state, as Cloud Hypervisor does.
func (f *fake) restore(dir string, resume any) error {
	var c struct {
		Vsock   struct{ Socket string }
		Net     []struct{ Tap, ID string }
		Unknown struct{ Kept bool }
	}
	text, err := os.ReadFile(filepath.Join(dir, chConfigFile))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return err
	}
	if !c.Unknown.Kept || len(c.Net) != 1 {
		return errors.New("the configuration lost something")
	}
	f.vsock, f.tap = c.Vsock.Socket, c.Net[0].Tap
	return f.load(filepath.Join(dir, "state.json"), resume)
}

// serveGuest listens where the VMM would, wants CONNECT, and lets a guest answer.
func (f *fake) serveGuest() error {
	if f.vsock == "" {
		return nil
	}
	os.Remove(f.vsock)
	l, err := net.Listen("unix", f.vsock)
	if err != nil {
		return err
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go f.connect(conn)
		}
	}()
	return nil
}

func (f *fake) connect(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	line, err := r.ReadString('\n')
	if err != nil || line != fmt.Sprintf("CONNECT %d\n", f.port) {
		return
	}
	fmt.Fprintf(conn, "OK 1073741824\n")
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		var q struct {
			Execute   string
			Arguments map[string]json.RawMessage
			ID        json.RawMessage
		}
		if json.Unmarshal([]byte(strings.TrimPrefix(line, "\xff")), &q) != nil {
			continue
		}
		if q.Execute == "guest-sync-delimited" {
			fmt.Fprintf(conn, "\xff{\"return\":%s}\n", q.Arguments["id"])
			continue
		}
		fmt.Fprintf(conn, "{\"return\":%s,\"id\":%s}\n", guestSays(q.Execute, q.Arguments), q.ID)
	}
}

// guestSays is a guest that is in generation 0 until it is told of another.
var guestGeneration int

func guestSays(command string, args map[string]json.RawMessage) string {
	status := func() string {
		return fmt.Sprintf(`{"state":"running","generation":%d,"vmgenid":""}`, guestGeneration)
	}
	switch command {
	case "rouse-status":
		return status()
	case "rouse-wait":
		return `{"status":` + status() + `,"report":{"kind":"adjust"}}`
	case "rouse-quiesce":
		return `{"kind":"quiesce","outcome":"ready"}`
	case "rouse-resumed":
		if strings.HasPrefix(string(args["generation"]), `"host-`) && args["seed"] != nil && os.Getenv("FAKE_DEAF") == "" {
			guestGeneration++
		}
	}
	return "{}"
}
