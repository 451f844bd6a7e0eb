// Command container is what a test puts into a container image: it serves over HTTP what it finds itself to be. With the argument
// probe it is the image's health check, and leaves a note that it ran.
package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "probe" {
		resp, err := http.Get("http://127.0.0.1:80/")
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		resp.Body.Close()
		os.Exit(0)
	}
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		dir, err := os.Getwd()
		if err != nil {
			dir = err.Error()
		}
		note := os.WriteFile("/data/note", []byte("x"), 0o600)
		_ = json.NewEncoder(w).Encode(map[string]any{"args": os.Args, "uid": os.Getuid(), "gid": os.Getgid(), "dir": dir, "greeting": os.Getenv("GREETING"),
			"extra": os.Getenv("EXTRA"), "path": os.Getenv("PATH"), "home": os.Getenv("HOME"), "note": fmt.Sprint(note)})
	})
	// A port that only root may take, or who has the capability.
	if err := http.ListenAndServe(":80", nil); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}
