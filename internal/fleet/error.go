package fleet

import (
	"errors"
	"fmt"
)

// Code says what kind of failure an error is. Stages return codes; only the
// edges turn them into HTTP statuses or exit codes.
type Code string

// The codes.
const (
	CodeInvalid         Code = "invalid"         // the caller must change the request
	CodeUnauthenticated Code = "unauthenticated" // who are you?
	CodeForbidden       Code = "forbidden"       // known, but not allowed
	CodeNotFound        Code = "not_found"
	CodeConflict        Code = "conflict"    // the state does not allow it, or changed meanwhile
	CodeTooMany         Code = "too_many"    // a limit was reached; try later
	CodeUnavailable     Code = "unavailable" // a part of Cordon does not answer; try later
)

// Error is a failure whose Message a person may read: it says what is wrong
// and what to do, and holds no secret.
type Error struct {
	Code    Code
	Field   string // the offending input, when there is one
	Message string
	Err     error // the cause, for logs only
}

// Errorf makes an Error; a %w operand becomes its cause.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), Err: errors.Unwrap(err)}
}

// On names the input that the error is about.
func (e *Error) On(field string) *Error {
	e.Field = field
	return e
}

func (e *Error) Error() string { return e.Message }

func (e *Error) Unwrap() error { return e.Err }

// CodeOf returns the code of the first Error in err's chain, or "" for
// foreign errors, whose text an outsider must not see.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}
