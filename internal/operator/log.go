package operator

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"cordon/internal/bus"
)

// Entry is one act of an operator, in the operator log.
type Entry struct {
	At        time.Time `json:"at"`
	Actor     string    `json:"actor"`
	Role      Role      `json:"role,omitempty"`
	Token     string    `json:"token,omitempty"` // name of the API token that was used
	Act       string    `json:"act"`             // the operation's id: quarantine-device
	Target    string    `json:"target,omitempty"`
	Outcome   string    `json:"outcome"` // done or refused
	Detail    string    `json:"detail,omitempty"`
	Before    any       `json:"before,omitempty"`
	After     any       `json:"after,omitempty"`
	Source    string    `json:"source,omitempty"` // address
	RequestID string    `json:"request_id,omitempty"`
}

// Audit records an act in the operator log.
func (d *Directory) Audit(ctx context.Context, e Entry) error {
	e.At = d.deps.Clock().UTC()
	d.deps.Log.Info("operator act", "actor", e.Actor, "act", e.Act, "target", e.Target, "outcome", e.Outcome, "source", e.Source, "request_id", e.RequestID)
	raw, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode operator log entry: %w", err)
	}
	// The act has happened: the entry must be written even when the caller is gone.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if _, err := d.deps.Bus.Core.Publish(ctx, bus.SubjectOperatorLog, raw); err != nil {
		return fmt.Errorf("write operator log: %w", err)
	}
	return nil
}
