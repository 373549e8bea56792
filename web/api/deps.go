package api

import "log/slog"

// maxBody is the most bytes of a request body.
const maxBody = 1 << 20

// Config says how the API is served.
type Config struct {
	Version string
}

// Deps are what the API stands on.
type Deps struct {
	Log *slog.Logger
}
