package operator

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

// Policy is what an installation asks of its operators.
type Policy struct {
	SecondFactor    []Role `json:"second_factor" maxItems:"4" doc:"Roles that must have a second factor."`
	PasswordDays    int    `json:"password_days" minimum:"0" maximum:"3650" doc:"A password must be changed after this many days; 0: never."`
	PasswordHistory int    `json:"password_history" minimum:"0" maximum:"24" doc:"This many former passwords may not be used again."`
}

const policyKey = "policy.current"

// Policy reads the policy; without one nothing is asked.
func (d *Directory) Policy(ctx context.Context) (Policy, error) {
	p := Policy{SecondFactor: []Role{}}
	_, err := d.read(ctx, bus.BucketOperator, policyKey, &p)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		err = nil
	}
	return p, err
}

// SetPolicy changes the policy. An administrator can't ask for a second factor
// without having one: nobody would be left to help.
func (d *Directory) SetPolicy(ctx context.Context, by Principal, p Policy) (before Policy, err error) {
	for _, role := range p.SecondFactor {
		if !slices.Contains(Roles, role) {
			return before, fleet.Errorf(fleet.CodeInvalid, "role %q is not one of viewer, analyst, responder, admin", role).On("body.second_factor")
		}
	}
	if p.PasswordDays < 0 || p.PasswordDays > 3650 || p.PasswordHistory < 0 || p.PasswordHistory > maxHistory {
		return before, fleet.Errorf(fleet.CodeInvalid, "password_days is 0 to 3650 and password_history 0 to %d", maxHistory).On("body")
	}
	if slices.Contains(p.SecondFactor, by.Role) && by.TokenID == "" {
		o, err := d.Operator(ctx, by.Name)
		if err != nil {
			return before, err
		}
		if o.TOTP == "" {
			return before, fleet.Errorf(fleet.CodeConflict, "set up your own second factor first: POST /api/v1/session/second-factor").On("body.second_factor")
		}
	}
	p.SecondFactor = append([]Role{}, p.SecondFactor...)
	old := Policy{SecondFactor: []Role{}}
	revision, err := d.read(ctx, bus.BucketOperator, policyKey, &old)
	if err != nil && !errors.Is(err, jetstream.ErrKeyNotFound) {
		return before, err
	}
	return old, d.write(ctx, bus.BucketOperator, policyKey, p, revision)
}

// duties are what an operator must do before anything else.
func (p Policy) duties(o Operator, now time.Time) (changePassword, setUpFactor bool) {
	since := o.ChangedAt
	if since.IsZero() {
		since = o.CreatedAt
	}
	old := p.PasswordDays > 0 && now.Sub(since) > time.Duration(p.PasswordDays)*24*time.Hour
	return o.MustChange || old, o.TOTP == "" && slices.Contains(p.SecondFactor, o.Role)
}
