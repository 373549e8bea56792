package api

import (
	"context"
	"slices"
	"strings"

	"cordon/internal/fleet"
)

func (a *API) listRules(context.Context, *noInput) (*rulesOutput, error) {
	rules := slices.Clone(a.deps.Rules.Rules())
	slices.SortFunc(rules, func(x, y fleet.Rule) int { return strings.Compare(x.ID, y.ID) })
	p := fleet.Page[fleet.Rule]{Items: make([]fleet.Rule, 0, len(rules)), Total: uint64(len(rules))}
	for _, r := range rules {
		p.Items = append(p.Items, ruleView(r))
	}
	return &rulesOutput{Body: p}, nil
}

func (a *API) rule(id string) (fleet.Rule, error) {
	for _, r := range a.deps.Rules.Rules() {
		if r.ID == id {
			return ruleView(r), nil
		}
	}
	return fleet.Rule{}, fleet.Errorf(fleet.CodeNotFound, "there is no rule %q", id)
}

func (a *API) getRule(_ context.Context, in *ruleInput) (*ruleOutput, error) {
	r, err := a.rule(in.ID)
	if err != nil {
		return nil, err
	}
	return &ruleOutput{Body: r}, nil
}

func (a *API) setRuleMode(ctx context.Context, in *modeInput) (*ruleOutput, error) {
	note(ctx, in.ID, nil, in.Body)
	before, err := a.rule(in.ID)
	if err != nil {
		return nil, err
	}
	after, err := a.deps.Rules.SetMode(ctx, in.ID, in.Body.Mode, caller(ctx).Name, in.Body.Reason)
	if err != nil {
		return nil, err
	}
	note(ctx, in.ID, map[string]any{"mode": before.Mode}, map[string]any{"mode": after.Mode, "reason": in.Body.Reason})
	return &ruleOutput{Body: ruleView(after)}, nil
}
