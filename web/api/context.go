package api

import (
	"context"

	"cordon/internal/operator"
)

type contextKey int

const (
	keyRequestID contextKey = iota
	keyCaller
	keySource
	keyAct
	keyWriter
)

// requestID names the request in logs and problems.
func requestID(ctx context.Context) string {
	id, _ := ctx.Value(keyRequestID).(string)
	return id
}

// caller is who asks; the zero value when nobody is signed in.
func caller(ctx context.Context) operator.Principal {
	p, _ := ctx.Value(keyCaller).(operator.Principal)
	return p
}

// source is the address that asks.
func source(ctx context.Context) string {
	s, _ := ctx.Value(keySource).(string)
	return s
}

// act is what an operation says about itself for the operator log.
type act struct {
	actor         string
	target        string
	before, after any
}

// note fills the operator log entry of the running operation.
func note(ctx context.Context, target string, before, after any) {
	if a, ok := ctx.Value(keyAct).(*act); ok {
		a.target, a.before, a.after = target, before, after
	}
}
