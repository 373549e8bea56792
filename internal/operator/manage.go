package operator

import (
	"context"
	"fmt"
	"strings"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

// Change says what to change of an operator; nil leaves a thing as it is.
type Change struct {
	Role     *Role
	Disabled *bool
	Scope    *Scope
}

// Modify changes an operator's role, scope or whether they may sign in; their
// sessions end. Nobody changes themself, and one administrator with the whole
// fleet always stays. Codes: not_found, invalid, conflict.
func (d *Directory) Modify(ctx context.Context, by Principal, name string, c Change) (before, after Operator, err error) {
	if name == by.Name && by.TokenID != localToken {
		return before, after, fleet.Errorf(fleet.CodeConflict, "another administrator must change your role, scope or access")
	}
	if c.Role != nil {
		if _, err := fleet.Parse("role", string(*c.Role), Roles); err != nil {
			return before, after, fleet.Errorf(fleet.CodeInvalid, "%w", err).On("body.role")
		}
	}
	if c.Scope != nil {
		if err := c.Scope.check(); err != nil {
			return before, after, err
		}
	}
	d.managing.Lock() // two demotions at once must not leave nobody
	defer d.managing.Unlock()
	err = d.change(ctx, name, func(o *Operator) error {
		before = *o
		var said []string
		if c.Role != nil && *c.Role != o.Role {
			o.Role = *c.Role
			said = append(said, "your role is now "+string(o.Role))
		}
		if c.Disabled != nil {
			o.Disabled = *c.Disabled
		}
		if c.Scope != nil {
			o.Scope = *c.Scope
			said = append(said, "your scope is now "+o.Scope.String())
		}
		if len(said) > 0 {
			o.tell(d.deps.Clock(), fmt.Sprintf("%s (by %s)", strings.Join(said, "; "), by.Name))
		}
		after = *o
		if before.keeper() && !after.keeper() {
			return d.anotherKeeper(ctx, name)
		}
		return nil
	})
	if err != nil {
		return before, after, err
	}
	return before, after, d.endSessions(ctx, name, "")
}

// Remove deletes an operator; their sessions and tokens end.
func (d *Directory) Remove(ctx context.Context, by Principal, name string) (Operator, error) {
	if name == by.Name && by.TokenID != localToken {
		return Operator{}, fleet.Errorf(fleet.CodeConflict, "another administrator must remove you")
	}
	d.managing.Lock()
	defer d.managing.Unlock()
	o, err := d.Operator(ctx, name)
	if err != nil {
		return o, err
	}
	if o.keeper() {
		if err := d.anotherKeeper(ctx, name); err != nil {
			return o, err
		}
	}
	tokens, err := d.Tokens(ctx)
	if err != nil {
		return o, err
	}
	if err := d.remove(ctx, bus.BucketOperator, operatorPrefix+name); err != nil {
		return o, err
	}
	for _, t := range tokens {
		if t.CreatedBy == name {
			if err := d.remove(ctx, bus.BucketOperator, tokenKeyPrefix+t.ID); err != nil {
				return o, err
			}
		}
	}
	return o, d.endSessions(ctx, name, "")
}

// keeper says whether the operator can manage everything.
func (o Operator) keeper() bool { return o.Role == Admin && !o.Disabled && o.Scope.Whole() }

func (d *Directory) anotherKeeper(ctx context.Context, but string) error {
	all, err := d.Operators(ctx)
	if err != nil {
		return err
	}
	for _, o := range all {
		if o.Name != but && o.keeper() {
			return nil
		}
	}
	return fleet.Errorf(fleet.CodeConflict, "%s is the last administrator of the whole fleet; make another one first", but)
}
