package quarantine

import (
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"time"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

const (
	approvalDevices = 500 // that a request names; further ones are only counted
	moreEvery       = 100 // the count is written every so many devices
)

// ask puts a stopped decision into the pending approval request of its rule,
// and makes one where there is none. It returns the request's id.
func (s *Service) ask(ctx context.Context, f fleet.Finding, v verdict) (string, error) {
	kv, err := s.deps.Bus.Bucket(ctx, bus.BucketGuard)
	if err != nil {
		return "", err
	}
	now := s.deps.Clock().UTC()
	for number := s.newest(f.RuleID); ; number++ {
		id := approvalID(f.RuleID, number)
		created, full := false, false
		a, err := change(ctx, kv, approvalKey(id), func(a *fleet.Approval, exists bool) (bool, error) {
			created, full = !exists, false
			if !exists {
				*a = fleet.Approval{
					ID: id, Rule: f.RuleID, Level: f.Level, Guard: v.stop, Detail: v.detail, State: fleet.ApprovalPending,
					Devices: []fleet.ApprovalDevice{}, CreatedAt: now, ExpiresAt: now.Add(s.cfg.ApprovalLife),
				}
			}
			if slices.ContainsFunc(a.Devices, func(d fleet.ApprovalDevice) bool { return d.Device == f.Device }) {
				return false, nil // it is asked about, or was decided on, in this request
			}
			if a.State != fleet.ApprovalPending || !now.Before(a.ExpiresAt) {
				full = true // a closed one takes no more: the next number
				return false, nil
			}
			a.UpdatedAt = now
			if len(a.Devices) >= approvalDevices {
				s.more++
				if s.more%moreEvery != 1 {
					return false, nil
				}
				a.More = s.more
				return true, nil
			}
			s.more = 0
			a.Devices = append(a.Devices, fleet.ApprovalDevice{Device: f.Device, Finding: f.ID, Reason: reason(f), At: now})
			return true, nil
		})
		if err != nil {
			return "", err
		}
		s.mu.Lock()
		s.approvals[a.ID] = a
		s.mu.Unlock()
		if full || a.State != fleet.ApprovalPending && !slices.ContainsFunc(a.Devices, func(d fleet.ApprovalDevice) bool { return d.Finding == f.ID }) {
			continue
		}
		if created {
			s.metrics.approvals.WithLabelValues(string(fleet.ApprovalPending)).Inc()
			s.deps.Log.Warn("approval of automatic quarantines requested", "approval", a.ID, "rule", a.Rule, "guard", a.Guard)
		}
		return a.ID, nil
	}
}

func approvalID(rule string, number int) string { return rule + "." + strconv.Itoa(number) }

func approvalKey(id string) string {
	return approvalPrefix + base64.RawURLEncoding.EncodeToString([]byte(id))
}

// newest is the number of a rule's newest approval request, 1 without any.
func (s *Service) newest(rule string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	number := 1
	for id, a := range s.approvals {
		if a.Rule == rule {
			number = max(number, int(fleet.DecisionNumber(id))) //nolint:gosec // counted up from 1
		}
	}
	return number
}

// Approvals lists approval requests: pending ones first, then the newest.
func (s *Service) Approvals() []fleet.Approval {
	now := s.deps.Clock()
	s.mu.Lock()
	list := make([]fleet.Approval, 0, len(s.approvals))
	for _, a := range s.approvals {
		if a.State == fleet.ApprovalPending && !now.Before(a.ExpiresAt) {
			a.State = fleet.ApprovalExpired
		}
		list = append(list, a)
	}
	s.mu.Unlock()
	slices.SortFunc(list, func(a, b fleet.Approval) int {
		if p := a.State == fleet.ApprovalPending; p != (b.State == fleet.ApprovalPending) {
			if p {
				return -1
			}
			return 1
		}
		return b.CreatedAt.Compare(a.CreatedAt)
	})
	return list
}

// Approve holds the devices of an approval request in the operator's name;
// with devices, only those. Each step may be repeated after a crash: the
// request is closed behind the last decision. Codes: not_found, conflict
// (decided or expired).
func (s *Service) Approve(ctx context.Context, id, actor, why string, devices []string) (fleet.Approval, error) {
	a, err := s.pending(ctx, id)
	if err != nil {
		return a, err
	}
	for i := range a.Devices {
		d := &a.Devices[i]
		if len(devices) > 0 && !slices.Contains(devices, d.Device) {
			d.Error = "not among the devices that were approved"
			continue
		}
		text := fmt.Sprintf("%s (rule %s, approved: %s)", d.Reason, a.Rule, why)
		q, err := s.Request(ctx, fleet.QuarantineRequest{
			Device: d.Device, Level: a.Level, Reason: text[:min(len(text), maxReason)], Actor: actor, Rule: a.Rule, Finding: d.Finding,
			Until: s.hold(1, s.deps.Clock()),
		})
		switch {
		case err == nil:
			d.Quarantine = q.ID
		case fleet.CodeOf(err) == "" || fleet.CodeOf(err) == fleet.CodeUnavailable:
			return a, err
		default:
			d.Error = err.Error()
		}
		if err := s.fault(FaultApproved); err != nil {
			return a, err
		}
	}
	return s.settle(ctx, a, fleet.ApprovalApproved, actor, why)
}

// Reject closes an approval request without holding anything. Codes:
// not_found, conflict.
func (s *Service) Reject(ctx context.Context, id, actor, why string) (fleet.Approval, error) {
	a, err := s.pending(ctx, id)
	if err != nil {
		return a, err
	}
	return s.settle(ctx, a, fleet.ApprovalRejected, actor, why)
}

func (s *Service) pending(ctx context.Context, id string) (fleet.Approval, error) {
	kv, err := s.deps.Bus.Bucket(ctx, bus.BucketGuard)
	if err != nil {
		return fleet.Approval{}, err
	}
	return change(ctx, kv, approvalKey(id), func(a *fleet.Approval, exists bool) (bool, error) {
		return false, open(*a, exists, id, s.deps.Clock())
	})
}

func open(a fleet.Approval, exists bool, id string, now time.Time) error {
	switch {
	case !exists:
		return fleet.Errorf(fleet.CodeNotFound, "no approval request %q", id)
	case a.State != fleet.ApprovalPending:
		return fleet.Errorf(fleet.CodeConflict, "approval request %s was %s by %s", id, a.State, a.DecidedBy)
	case !now.Before(a.ExpiresAt):
		return fleet.Errorf(fleet.CodeConflict, "approval request %s expired at %s", id, a.ExpiresAt.Format(time.RFC3339))
	}
	return nil
}

func (s *Service) settle(ctx context.Context, decided fleet.Approval, state fleet.ApprovalState, actor, why string) (fleet.Approval, error) {
	kv, err := s.deps.Bus.Bucket(ctx, bus.BucketGuard)
	if err != nil {
		return decided, err
	}
	now := s.deps.Clock().UTC()
	a, err := change(ctx, kv, approvalKey(decided.ID), func(a *fleet.Approval, exists bool) (bool, error) {
		if err := open(*a, exists, decided.ID, now); err != nil {
			return false, err
		}
		copy(a.Devices, decided.Devices) // it only grows at its end
		for i := len(decided.Devices); i < len(a.Devices); i++ {
			a.Devices[i].Error = "came while the request was being decided"
		}
		a.State, a.DecidedAt, a.DecidedBy, a.Reason, a.UpdatedAt = state, now, actor, why, now
		return true, nil
	})
	if err != nil {
		return a, err
	}
	s.mu.Lock()
	s.approvals[a.ID] = a
	s.mu.Unlock()
	s.metrics.approvals.WithLabelValues(string(state)).Inc()
	s.deps.Log.Info("approval request decided", "approval", a.ID, "state", string(state), "actor", actor, "reason", why)
	return a, nil
}
