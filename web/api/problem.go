package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gin-gonic/gin"

	"cordon/internal/fleet"
	"cordon/internal/operator"
)

// Problem is an RFC 9457 problem document. Code is stable and for programs,
// Detail is for people.
type Problem struct {
	Type      string              `json:"type" doc:"A URI that names the kind of problem." example:"about:blank"`
	Title     string              `json:"title" doc:"The kind of problem in a few words."`
	Status    int                 `json:"status" doc:"The HTTP status."`
	Detail    string              `json:"detail" doc:"What is wrong and what to do."`
	Code      string              `json:"code" doc:"A stable name of the kind of problem." example:"not_found"`
	RequestID string              `json:"request_id,omitempty" doc:"Names this request in Cordon's log."`
	Errors    []*huma.ErrorDetail `json:"errors,omitempty" doc:"Every fault of the input with its place."`

	header http.Header
}

// Codes that only this package gives.
const (
	codePasswordChangeRequired = "password_change_required"
	codeSecondFactorRequired   = "second_factor_setup_required"
	codeSecondFactorCode       = "second_factor_required"
	codeChallengeRequired      = "challenge_required"
	codeProofRequired          = "proof_required"
	codeChanged                = "changed_meanwhile"
	codeInternal               = "internal"
)

// statuses is the one table from a failure's code to its HTTP status.
var statuses = map[fleet.Code]int{
	fleet.CodeInvalid:         http.StatusUnprocessableEntity,
	fleet.CodeUnauthenticated: http.StatusUnauthorized,
	fleet.CodeForbidden:       http.StatusForbidden,
	fleet.CodeNotFound:        http.StatusNotFound,
	fleet.CodeConflict:        http.StatusConflict,
	fleet.CodeTooMany:         http.StatusTooManyRequests,
	fleet.CodeUnavailable:     http.StatusServiceUnavailable,
}

// codes is the reverse of statuses, for problems that huma itself finds.
var codes = map[int]string{
	http.StatusBadRequest:            string(fleet.CodeInvalid),
	http.StatusUnprocessableEntity:   string(fleet.CodeInvalid),
	http.StatusUnauthorized:          string(fleet.CodeUnauthenticated),
	http.StatusForbidden:             string(fleet.CodeForbidden),
	http.StatusNotFound:              string(fleet.CodeNotFound),
	http.StatusMethodNotAllowed:      "method_not_allowed",
	http.StatusNotAcceptable:         "not_acceptable",
	http.StatusRequestTimeout:        "timeout",
	http.StatusConflict:              string(fleet.CodeConflict),
	http.StatusRequestEntityTooLarge: "too_large",
	http.StatusPreconditionFailed:    codeChanged,
	http.StatusUnsupportedMediaType:  "unsupported_media_type",
	http.StatusMisdirectedRequest:    "misdirected",
	http.StatusTooManyRequests:       string(fleet.CodeTooMany),
	http.StatusServiceUnavailable:    string(fleet.CodeUnavailable),
}

// Error returns the detail.
func (p *Problem) Error() string { return p.Detail }

// GetStatus returns the HTTP status.
func (p *Problem) GetStatus() int { return p.Status }

// GetHeaders returns headers that belong to the problem, such as Retry-After.
func (p *Problem) GetHeaders() http.Header { return p.header }

// ContentType is application/problem+json.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

func init() {
	gin.SetMode(gin.ReleaseMode)
	huma.DefaultArrayNullable = false // lists are [] and never null
	// huma makes its own problems (validation, content types) through these
	// hooks; its defaults would show the text of foreign errors.
	huma.NewError = func(status int, message string, errs ...error) huma.StatusError {
		return newProblem(status, message, errs...)
	}
	huma.NewErrorWithContext = func(ctx huma.Context, status int, message string, errs ...error) huma.StatusError {
		p := newProblem(status, message, errs...)
		if ctx != nil {
			p.RequestID = requestID(ctx.Context())
		}
		return p
	}
}

func newProblem(status int, message string, errs ...error) *Problem {
	p := &Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: message, Code: codes[status]}
	if p.Code == "" {
		p.Code = codeInternal
	}
	for _, err := range errs {
		var detail huma.ErrorDetailer
		if errors.As(err, &detail) {
			p.Errors = append(p.Errors, detail.ErrorDetail())
		}
	}
	return p
}

// retryAfter lets an error say when to try again.
type retryAfter interface{ RetryAfterSeconds() int }

// problem turns any error into what an outsider may see. Text of foreign
// errors stays in the log.
func problem(ctx context.Context, log *slog.Logger, err error) *Problem {
	var ready *Problem
	if errors.As(err, &ready) {
		ready.RequestID = requestID(ctx)
		return ready
	}
	var known *fleet.Error
	switch {
	case errors.As(err, &known) && statuses[known.Code] != 0:
		p := newProblem(statuses[known.Code], known.Message)
		if known.Field != "" {
			p.Errors = []*huma.ErrorDetail{{Message: known.Message, Location: known.Field}}
		}
		p.RequestID = requestID(ctx)
		var delay *operator.DelayError
		if errors.Is(err, operator.ErrSecondFactor) {
			p.Code = codeSecondFactorCode
		} else if errors.As(err, &delay) && delay.Challenge {
			p.Code = codeChallengeRequired
		}
		var later retryAfter
		if errors.As(err, &later) {
			p.header = http.Header{"Retry-After": {strconv.Itoa(later.RetryAfterSeconds())}}
		}
		if known.Err != nil && p.Status >= http.StatusInternalServerError {
			log.Warn("request failed", "request_id", p.RequestID, "code", known.Code, "error", known.Message, "cause", known.Err)
		}
		return p
	case errors.Is(err, context.DeadlineExceeded):
		p := newProblem(http.StatusServiceUnavailable, "this took too long and was stopped; try again, or ask for less")
		p.RequestID = requestID(ctx)
		log.Warn("request timed out", "request_id", p.RequestID, "error", err)
		return p
	}
	p := newProblem(http.StatusInternalServerError, "internal error")
	p.RequestID = requestID(ctx)
	if p.RequestID != "" {
		p.Detail = "internal error; Cordon's log names it by request id " + p.RequestID
	}
	if !errors.Is(err, context.Canceled) {
		log.Error("request failed", "request_id", p.RequestID, "error", err)
	}
	return p
}
