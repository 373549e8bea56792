package store

import (
	"encoding/base64"
	"encoding/json"

	"cordon/internal/fleet"
)

// Cursor marks a place in a list: the Next of a fleet.Page, passed back as it
// came. The empty cursor is the start.
type Cursor string

// place is what a cursor holds: the key of the last row of a page.
type place struct {
	Millis    int64  `json:"t"`
	StreamSeq uint64 `json:"s"`
	N         uint32 `json:"n,omitempty"`
	ID        string `json:"i,omitempty"`
}

func (p place) cursor() string {
	text, err := json.Marshal(p)
	if err != nil {
		return "" // a struct of numbers and a string always marshals
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

// place parses a cursor; ok is false for the empty one.
func (c Cursor) place() (p place, ok bool, err error) {
	if c == "" {
		return place{}, false, nil
	}
	bad := fleet.Errorf(fleet.CodeInvalid, "cursor is not one that Cordon gave out: start again without it").On("cursor")
	if len(c) > 1024 {
		return place{}, false, bad
	}
	text, err := base64.RawURLEncoding.DecodeString(string(c))
	if err != nil {
		return place{}, false, bad
	}
	if err := json.Unmarshal(text, &p); err != nil {
		return place{}, false, bad
	}
	return p, true, nil
}
