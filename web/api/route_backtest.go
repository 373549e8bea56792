package api

import (
	"context"
	"net/http"
	"time"

	"cordon/internal/fleet"
)

// Backtest runs a rule over stored history. The deadline of the context ends
// it early, with what was found until then.
type Backtest func(ctx context.Context, in fleet.BacktestRequest) (fleet.BacktestReport, error)

type (
	backtestInput  struct{ Body BacktestRequest }
	backtestOutput struct{ Body fleet.BacktestReport }
)

// BacktestRequest asks what a rule would have done.
type BacktestRequest struct {
	ID     string    `json:"id,omitempty" maxLength:"128" doc:"A rule in force: the one to try, or with source the one to compare with."`
	Source string    `json:"source,omitempty" maxLength:"65536" doc:"The rule's YAML, in Cordon's language or Sigma's."`
	Device string    `json:"device,omitempty" maxLength:"64" doc:"Only this device."`
	From   time.Time `json:"from,omitzero" doc:"A day before to, if left out."`
	To     time.Time `json:"to,omitzero" doc:"Now, if left out."`
}

// What one backtest may take.
const (
	backtestSpan = 35 * 24 * time.Hour
	backtestTime = 25 * time.Second
)

func (a *API) backtestRoutes() {
	add(a, route{"backtest-rule", http.MethodPost, "/rules/backtest", "Say what a rule would have done", "rules"}, a.backtestRule)
}

func (a *API) backtestRule(ctx context.Context, in *backtestInput) (*backtestOutput, error) {
	note(ctx, in.Body.ID, nil, map[string]any{"id": in.Body.ID, "device": in.Body.Device, "from": in.Body.From, "to": in.Body.To})
	q := fleet.BacktestRequest(in.Body)
	if q.ID == "" && q.Source == "" {
		return nil, fleet.Errorf(fleet.CodeInvalid, "name a rule or send one").On("id")
	}
	if a.deps.Insight.Backtest == nil {
		return nil, fleet.Errorf(fleet.CodeUnavailable, "no detector can run a trial here")
	}
	if q.To.IsZero() {
		q.To = a.deps.Clock()
	}
	if q.From.IsZero() {
		q.From = q.To.Add(-24 * time.Hour)
	}
	switch {
	case !q.From.Before(q.To):
		return nil, fleet.Errorf(fleet.CodeInvalid, "from must be before to").On("from")
	case q.To.Sub(q.From) > backtestSpan:
		return nil, fleet.Errorf(fleet.CodeInvalid, "at most 35 days can be tried at once").On("from")
	}
	ctx, cancel := context.WithTimeout(ctx, backtestTime)
	defer cancel()
	report, err := a.deps.Insight.Backtest(ctx, q)
	if err != nil {
		return nil, err
	}
	return &backtestOutput{Body: report}, nil
}
