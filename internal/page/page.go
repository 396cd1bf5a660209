package page

import (
	"embed"
	"encoding/json"
	"io/fs"
	"net/http"
)

// shared are files that pages load beside their own.
//
//go:embed shared
var shared embed.FS

// Serve adds to mux the files of a page: those in the folder dir of files, of which
// index.html is at /, and shared.css and shared.js. It panics if there is no such
// folder.
func Serve(mux *http.ServeMux, files fs.FS, dir string) {
	serve(mux, files, dir)
	serve(mux, shared, "shared")
}

func serve(mux *http.ServeMux, files fs.FS, dir string) {
	entries, err := fs.ReadDir(files, dir)
	if err != nil {
		panic(err)
	}
	for _, e := range entries {
		path := "/" + e.Name()
		switch e.Name() {
		case "token.html": // the guard shows it
			continue
		case "index.html":
			path = "/{$}"
		}
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			http.ServeFileFS(w, r, files, dir+"/"+e.Name())
		})
	}
}

// Answer answers a request with v in JSON.
func Answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // an error means that the client has gone
}
