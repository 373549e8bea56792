package api

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"cordon/internal/fleet"
	"cordon/internal/operator"
)

type (
	listLogInput struct {
		Paging
		Period
		Actor   string `query:"actor" maxLength:"64"`
		Act     string `query:"act" maxLength:"64" doc:"An operation's id, e.g. quarantine-device."`
		Target  string `query:"target" maxLength:"128"`
		Outcome string `query:"outcome" enum:"done,refused"`
		Query   string `query:"q" maxLength:"256" doc:"Part of the entry."`
	}
	listLogOutput   struct{ Body fleet.Page[LogEntry] }
	verifyLogOutput struct{ Body operator.Verdict }
)

// LogEntry is an act of an operator: who did what to what, from where, and how
// it was before and after.
type LogEntry struct {
	Seq       uint64        `json:"seq" doc:"Its number in the chain."`
	Hash      string        `json:"hash" doc:"SHA-256 of the record; the next one holds it."`
	At        time.Time     `json:"at"`
	Actor     string        `json:"actor"`
	Role      operator.Role `json:"role,omitempty"`
	Token     string        `json:"token,omitempty" doc:"Name of the API token that was used."`
	Act       string        `json:"act"`
	Target    string        `json:"target"`
	Outcome   string        `json:"outcome" enum:"done,refused"`
	Detail    string        `json:"detail,omitempty" doc:"Why it was refused."`
	Before    any           `json:"before,omitempty"`
	After     any           `json:"after,omitempty"`
	Source    string        `json:"source,omitempty"`
	RequestID string        `json:"request_id,omitempty"`
}

func (a *API) logRoutes() {
	add(a, route{"list-operator-log", http.MethodGet, "/operator-log", "List what operators did, newest first", "operators"}, a.listOperatorLog)
	add(a, route{"verify-operator-log", http.MethodGet, "/operator-log/verify", "Check the whole operator log for changed, missing and reordered entries", "operators"}, a.verifyOperatorLog)
	r := route{"export-operator-log", http.MethodGet, "/operator-log/export", "Export the operator log as stored, one record a line, for cordon log verify", "operators"}
	add(a, r, a.exportOperatorLog)
}

func (a *API) listOperatorLog(ctx context.Context, in *listLogInput) (*listLogOutput, error) {
	var before uint64
	if in.Cursor != "" {
		var err error
		if before, err = strconv.ParseUint(in.Cursor, 10, 64); err != nil || before == 0 {
			return nil, fleet.Errorf(fleet.CodeInvalid, "the cursor does not belong to this list: start again without it").On("query.cursor")
		}
	}
	lines, next, total, err := a.deps.Operators.Log(ctx, operator.LogFilter{
		Actor: in.Actor, Act: in.Act, Target: in.Target, Outcome: in.Outcome, Query: in.Query, From: in.From, To: in.To,
	}, before, in.Limit)
	if err != nil {
		return nil, err
	}
	out := fleet.Page[LogEntry]{Items: make([]LogEntry, 0, len(lines)), Total: total}
	if next > 0 {
		out.Next = strconv.FormatUint(next, 10)
	}
	for _, l := range lines {
		e := l.Entry
		out.Items = append(out.Items, LogEntry{
			Seq: l.Seq, Hash: l.Hash, At: e.At, Actor: e.Actor, Role: e.Role, Token: e.Token, Act: e.Act, Target: e.Target,
			Outcome: e.Outcome, Detail: e.Detail, Before: e.Before, After: e.After, Source: e.Source, RequestID: e.RequestID,
		})
	}
	return &listLogOutput{Body: out}, nil
}

func (a *API) verifyOperatorLog(ctx context.Context, _ *noInput) (*verifyLogOutput, error) {
	v, err := a.deps.Operators.VerifyLog(ctx)
	if err != nil {
		return nil, err
	}
	return &verifyLogOutput{Body: v}, nil
}

func (a *API) exportOperatorLog(_ context.Context, _ *noInput) (*huma.StreamResponse, error) {
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		ctx.SetHeader("Content-Type", typeNDJSON)
		ctx.SetHeader("Content-Disposition", `attachment; filename="cordon-operator-log.ndjson"`)
		if err := a.deps.Operators.ExportLog(ctx.Context(), ctx.BodyWriter()); err != nil {
			a.deps.Log.Warn("export of operator log broke off", "request_id", requestID(ctx.Context()), "error", err)
		}
	}}, nil
}
