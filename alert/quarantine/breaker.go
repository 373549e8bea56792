package quarantine

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

const (
	fleetScope     = "fleet"
	cohortPrefix   = "cohort:"
	breakerPrefix  = "breaker."
	approvalPrefix = "approval."
	guardVersion   = "1"
)

// Points at which a test may break off (Config.Fault).
const (
	FaultTripped   = "tripped"   // the breaker is open
	FaultAlarmed   = "alarmed"   // the fleet incident's finding is published
	FaultAsked     = "asked"     // the approval request is written
	FaultRequested = "requested" // the decision is written
	FaultApproved  = "approved"  // one device of a request is held, the request not closed
)

func (s *Service) fault(point string) error {
	if s.cfg.Fault == nil {
		return nil
	}
	return s.cfg.Fault(point)
}

func breakerKey(scope string) string {
	return breakerPrefix + base64.RawURLEncoding.EncodeToString([]byte(scope))
}

// change reads an entry of bucket "guard", lets change alter it and writes it
// by compare-and-set until no other writer was faster.
func change[T any](ctx context.Context, kv jetstream.KeyValue, key string, change func(v *T, exists bool) (write bool, err error)) (T, error) {
	for range casAttempts {
		var v T
		entry, err := kv.Get(ctx, key)
		switch {
		case errors.Is(err, jetstream.ErrKeyNotFound):
		case err != nil:
			return v, fmt.Errorf("read %s: %w", key, err)
		default:
			if err := json.Unmarshal(entry.Value(), &v); err != nil {
				return v, fmt.Errorf("decode %s: %w", key, err)
			}
		}
		write, err := change(&v, entry != nil)
		if err != nil || !write {
			return v, err
		}
		data, err := json.Marshal(v)
		if err != nil {
			return v, fmt.Errorf("encode %s: %w", key, err)
		}
		if entry == nil {
			_, err = kv.Create(ctx, key, data)
		} else {
			_, err = kv.Update(ctx, key, data, entry.Revision())
		}
		if errors.Is(err, jetstream.ErrKeyExists) || errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
			continue
		}
		if err != nil {
			return v, fmt.Errorf("write %s: %w", key, err)
		}
		return v, nil
	}
	var none T
	return none, fleet.Errorf(fleet.CodeConflict, "%s is being changed by others: try again", key)
}

// trip opens the breaker of a scope whose cap stopped a decision, and sees to
// it that the fleet incident is told once.
func (s *Service) trip(ctx context.Context, f fleet.Finding, v verdict) error {
	kv, err := s.deps.Bus.Bucket(ctx, bus.BucketGuard)
	if err != nil {
		return err
	}
	s.mu.Lock()
	b := s.breakers[v.scope]
	s.mu.Unlock()
	if b.Open && b.Alarmed {
		return nil
	}
	opened := false
	b, err = change(ctx, kv, breakerKey(v.scope), func(b *fleet.Breaker, _ bool) (bool, error) {
		opened = !b.Open
		if b.Open {
			return false, nil
		}
		*b = fleet.Breaker{Scope: v.scope, Open: true, Guard: v.stop, Detail: v.detail, Rule: f.RuleID, OpenedAt: s.deps.Clock().UTC()}
		return true, nil
	})
	if err != nil {
		return err
	}
	s.keep(b)
	if opened {
		s.metrics.tripped.Inc()
		s.deps.Log.Error("circuit breaker opened: automatic quarantines wait for an operator", "scope", b.Scope, "guard", b.Guard, "rule", b.Rule, "detail", b.Detail)
	}
	if err := s.fault(FaultTripped); err != nil || b.Alarmed {
		return err
	}
	if err := s.alarm(ctx, f, b); err != nil {
		return err
	}
	if err := s.fault(FaultAlarmed); err != nil {
		return err
	}
	b, err = change(ctx, kv, breakerKey(v.scope), func(b *fleet.Breaker, _ bool) (bool, error) {
		write := b.Open && !b.Alarmed
		b.Alarmed = true
		return write, nil
	})
	if err == nil {
		s.keep(b)
	}
	return err
}

func (s *Service) keep(b fleet.Breaker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.breakers[b.Scope] = b
}

// alarm raises the one finding about the fleet that an opened breaker is. Its
// id is the breaker's, so however often it is published there is one.
func (s *Service) alarm(ctx context.Context, f fleet.Finding, b fleet.Breaker) error {
	alarm := fleet.Finding{
		ID:     fleet.FindingID(fleet.GuardRule, guardVersion, fleet.FleetID, b.Scope, b.OpenedAt),
		Device: fleet.FleetID, RuleID: fleet.GuardRule, RuleVersion: guardVersion, RuleTitle: "Automatic quarantines were stopped",
		Mode: fleet.Alert, Evidence: fleet.Own, Severity: fleet.High,
		WindowStart: b.OpenedAt, WindowEnd: b.OpenedAt, ReceivedAt: b.OpenedAt, DetectedAt: b.OpenedAt, StreamSeq: f.StreamSeq,
		Explanation: fleet.Explanation{
			Sentence: fmt.Sprintf("Rule %s reached a limit of automatic quarantines (%s). %s Further ones wait for approval.", b.Rule, b.Scope, b.Detail),
			Basis:    "rule",
		},
	}
	data, err := json.Marshal(alarm)
	if err != nil {
		return fmt.Errorf("encode finding about the fleet: %w", err)
	}
	if _, err := s.deps.Bus.Core.Publish(ctx, bus.SubjectFinding+"."+fleet.FleetID, data, jetstream.WithMsgID(alarm.ID)); err != nil {
		return fmt.Errorf("publish finding about the fleet: %w", err)
	}
	return nil
}

// Resume closes the circuit breaker of a scope; its cap counts anew from now.
// Codes: not_found, conflict (not open).
func (s *Service) Resume(ctx context.Context, scope, actor, reason string) (fleet.Breaker, error) {
	kv, err := s.deps.Bus.Bucket(ctx, bus.BucketGuard)
	if err != nil {
		return fleet.Breaker{}, err
	}
	b, err := change(ctx, kv, breakerKey(scope), func(b *fleet.Breaker, exists bool) (bool, error) {
		if !exists {
			return false, fleet.Errorf(fleet.CodeNotFound, "no circuit breaker of %q ever opened", scope).On("scope")
		}
		if !b.Open {
			return false, fleet.Errorf(fleet.CodeConflict, "the circuit breaker of %s is not open: %s resumed it", scope, b.ResumedBy).On("scope")
		}
		b.Open, b.ResumedAt, b.ResumedBy, b.Reason = false, s.deps.Clock().UTC(), actor, reason
		return true, nil
	})
	if err != nil {
		return b, err
	}
	s.keep(b)
	s.deps.Log.Info("circuit breaker resumed", "scope", scope, "actor", actor, "reason", reason)
	return b, nil
}

// Guards says how all guards stand.
func (s *Service) Guards() fleet.Guards {
	now := s.deps.Clock()
	s.mu.Lock()
	defer s.mu.Unlock()
	g := fleet.Guards{
		Window: s.cfg.Window, FirstHold: s.cfg.FirstHold, HoldFactor: s.cfg.HoldFactor, MaxHold: s.cfg.MaxHold, ResetAfter: s.cfg.ResetAfter,
		Caps: []fleet.GuardCap{}, Breakers: []fleet.Breaker{}, Protected: slices.Clone(s.cfg.ProtectedDevices),
		StoppedLast: slices.Clone(s.stopped[max(0, len(s.stopped)-20):]),
	}
	slices.Reverse(g.StoppedLast)
	if g.StoppedLast == nil {
		g.StoppedLast = []fleet.Stopped{}
	}
	if s.cfg.Protected != "" {
		g.Protected = append(g.Protected, "tag:"+s.cfg.Protected)
	}
	seen := map[string]bool{}
	add := func(rule, cohort string) {
		for _, c := range s.scopes(rule, cohort) {
			if seen[c.name] || c.name == rulePrefix {
				continue
			}
			seen[c.name] = true
			limit, reserved := s.limit(c)
			g.Caps = append(g.Caps, fleet.GuardCap{Scope: c.name, Used: len(s.used(c, now, nil)), Limit: limit, Reserved: reserved, Share: c.share})
		}
	}
	add("", "")
	for _, d := range s.decisions {
		if now.Sub(d.at) < s.cfg.Window {
			add(d.rule, d.cohort)
		}
	}
	for _, b := range s.breakers {
		g.Breakers = append(g.Breakers, b)
	}
	slices.SortFunc(g.Caps, func(a, b fleet.GuardCap) int { return cmp.Compare(a.Scope, b.Scope) })
	slices.SortFunc(g.Breakers, func(a, b fleet.Breaker) int {
		if a.Open != b.Open {
			if a.Open {
				return -1
			}
			return 1
		}
		return b.OpenedAt.Compare(a.OpenedAt)
	})
	for _, a := range s.approvals {
		if a.State == fleet.ApprovalPending && now.Before(a.ExpiresAt) {
			g.Pending++
		}
	}
	return g
}

// storeGuard takes an entry of bucket "guard" into memory.
func (s *Service) storeGuard(key string, value []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case strings.HasPrefix(key, breakerPrefix):
		var b fleet.Breaker
		if err := json.Unmarshal(value, &b); err == nil {
			s.breakers[b.Scope] = b
		}
	case strings.HasPrefix(key, blockPrefix):
		var b fleet.Block
		if err := json.Unmarshal(value, &b); err == nil {
			s.blocks[b.Address] = b
		}
	case strings.HasPrefix(key, approvalPrefix):
		var a fleet.Approval
		if err := json.Unmarshal(value, &a); err == nil {
			s.approvals[a.ID] = a
		}
	}
}

func (s *Service) watchGuards(ctx context.Context) error {
	kv, err := s.deps.Bus.Bucket(ctx, bus.BucketGuard)
	if err != nil {
		return err
	}
	watcher, err := kv.WatchFiltered(ctx, []string{breakerPrefix + ">", approvalPrefix + ">", blockPrefix + ">"})
	if err != nil {
		return fmt.Errorf("watch bucket %s: %w", bus.BucketGuard, err)
	}
	defer watcher.Stop() //nolint:errcheck // nothing can be done about it
	// The client misses an end of ctx that comes while it subscribes.
	defer context.AfterFunc(ctx, func() { _ = watcher.Stop() })()
	for update := range watcher.Updates() {
		if update == nil {
			s.guardsOnce.Do(s.loaded)
			continue
		}
		if update.Operation() == jetstream.KeyValuePut {
			s.storeGuard(update.Key(), update.Value())
		}
	}
	return errors.New("watch closed by the broker")
}

func (s *Service) followGuards(ctx context.Context) {
	for {
		err := s.watchGuards(ctx)
		if ctx.Err() != nil {
			return
		}
		s.deps.Log.Warn("watch of guards ended, starting it again", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(watchRetry):
		}
	}
}
