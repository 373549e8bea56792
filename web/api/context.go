package api

import "context"

type contextKey int

const (
	keyRequestID contextKey = iota
	keyCaller
)

// requestID names the request in logs and problems.
func requestID(ctx context.Context) string {
	id, _ := ctx.Value(keyRequestID).(string)
	return id
}
