package incident

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"cordon/internal/fleet"
)

// carryFor is how long what a device did before still counts in its next
// incident.
const carryFor = 24 * time.Hour

// begin gives a new incident what is known already: the risk and the flapping
// of the one before, and the incidents that become part of a group.
func (s *Service) begin(ctx context.Context, r, before *record, g group, a arrival) error {
	at := received(a.finding, s.now())
	if before != nil && before.Parent == "" && at.Sub(before.ResolvedAt) < carryFor &&
		before.Verdict != fleet.Benign && before.Verdict != fleet.FalsePositive {
		r.Risk += before.RiskNow(at)
		r.Severity = r.Severity.Worse(severityOf(r.Risk))
	}
	if before != nil && slices.Contains(before.Pairs, r.pair(a.finding)) && at.Sub(before.ResolvedAt) < flapWindow {
		r.Flaps = before.Flaps
		if r.flap(at) {
			r.note(at, ChangeFlapping, ruleActor(a.finding), fmt.Sprintf("flapping: %s came back %d times within %s", a.finding.RuleID, flapCount, flapWindow))
		}
	}
	if g.key == "" {
		return nil
	}
	for _, id := range s.peers(g, at) {
		child, _, err := s.load(ctx, id)
		if err != nil {
			return err
		}
		if child == nil || child.State != fleet.Open {
			continue
		}
		r.takeIn(child)
	}
	if n := len(r.Absorb); n > 0 {
		r.note(at, ChangeFinding, Actor, fmt.Sprintf("%d incidents have the same cause and became part of this one", n))
	}
	r.retitle()
	r.Outbox[len(r.Outbox)-1].Finding = bounded(&a.finding)
	return nil
}

// takeIn counts what an incident holds as the group's own.
func (r *record) takeIn(child *record) {
	r.Absorb = append(r.Absorb, child.ID)
	r.Children = addUnique(r.Children, child.ID, maxChildren)
	r.Findings += child.Findings
	for _, id := range child.FindingIDs {
		r.Seen = keepHash(r.Seen, hash64(id), 8, maxSeen)
	}
	ids := append(slices.Clone(child.FindingIDs), r.FindingIDs...)
	r.FindingIDs = ids[max(len(ids)-maxFindingIDs, 0):]
	r.include(child.Device)
	for _, rule := range child.Rules {
		r.Rules = addUnique(r.Rules, rule, maxRules)
	}
	for _, technique := range child.Techniques {
		r.Techniques = addUnique(r.Techniques, technique, maxTechniques)
	}
	for _, actor := range child.Actors {
		r.Actors = addUnique(r.Actors, actor, maxActors)
	}
	for _, pair := range child.Rules {
		r.Pairs = addUnique(r.Pairs, pair+"\x1f", maxPairs)
	}
	if child.FirstAt.Before(r.FirstAt) {
		r.FirstAt = child.FirstAt
	}
	if child.LastAt.After(r.LastAt) {
		r.LastAt = child.LastAt
	}
	r.Risk += child.RiskNow(r.RiskAt) * sameRuleShare
	r.Severity = r.Severity.Worse(child.Severity).Worse(severityOf(r.Risk))
}

// widen makes the incident of one device tell of others too.
func (r *record) widen(g group) {
	if r.grouped() {
		return
	}
	r.Scope, r.Cause, r.RuleTitle = g.scope, g.words, r.Title
	r.include(r.Device)
	for _, id := range r.FindingIDs {
		r.Seen = keepHash(r.Seen, hash64(id), 8, maxSeen)
	}
}

// absorb closes the incidents that became part of a group, then forgets that
// they were to be closed: a crash in between repeats what changes nothing.
func (s *Service) absorb(ctx context.Context, id string) error {
	r, _, err := s.load(ctx, id)
	if err != nil || r == nil || len(r.Absorb) == 0 {
		return err
	}
	for _, child := range r.Absorb {
		if err := s.fault("absorb"); err != nil {
			return err
		}
		if err := s.mergeInto(ctx, child, r); err != nil {
			return err
		}
	}
	lock := s.lock(r.key())
	lock.Lock()
	defer lock.Unlock()
	for range maxTries {
		current, revision, err := s.load(ctx, id)
		if err != nil || current == nil || len(current.Absorb) == 0 {
			return err
		}
		current.Absorb = nil
		if _, err = s.save(ctx, current, revision); !errors.Is(err, errRaced) {
			return err
		}
	}
	return fmt.Errorf("take incidents into %s: %w", id, errRaced)
}

func (s *Service) mergeInto(ctx context.Context, child string, group *record) error {
	_, err := s.mutate(ctx, child, Actor, func(r *record) error {
		if r.State != fleet.Open || r.Parent != "" {
			return errUnchanged // done before, or somebody has taken it up
		}
		now := s.now()
		r.State, r.ResolvedAt, r.ResolvedBy, r.UpdatedAt = fleet.Resolved, now, Actor, now
		r.Verdict, r.Reason, r.Parent = fleet.Undetermined, "part of "+group.ID+": "+group.Title, group.ID
		r.note(now, ChangeMerged, Actor, r.Reason)
		r.tell(ChangeMerged, Actor, nil)
		return nil
	})
	if fleet.CodeOf(err) == fleet.CodeNotFound {
		return nil
	}
	return err
}
