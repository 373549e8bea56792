// Package static holds the built dashboard. A binary built without it serves
// a page that says so.
package static

import (
	"embed"
	"io/fs"
)

//go:embed all:dist placeholder.html
var files embed.FS

// Dashboard returns the built dashboard, and false when the binary was built
// without it.
func Dashboard() (fs.FS, bool) {
	dist, err := fs.Sub(files, "dist")
	if err != nil {
		return nil, false
	}
	if _, err := fs.Stat(dist, "index.html"); err != nil {
		return nil, false
	}
	return dist, true
}

// Placeholder is the page of a binary without the dashboard.
func Placeholder() []byte {
	page, err := files.ReadFile("placeholder.html")
	if err != nil {
		return []byte("Cordon runs, but was built without the dashboard: run make build.")
	}
	return page
}
