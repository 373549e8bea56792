package incident

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"cordon/internal/fleet"
)

// Bounds of what operators write, in bytes.
const (
	MaxComment  = 2000
	MaxReason   = 2000
	MaxAssignee = 128
)

// errUnchanged ends a mutation that has nothing to do.
var errUnchanged = errors.New("nothing to change")

// Get returns an incident with its whole timeline. id is INC-12 or 12.
// CodeNotFound if there is none.
func (s *Service) Get(ctx context.Context, id string) (fleet.Incident, error) {
	key, err := check(id)
	if err != nil {
		return fleet.Incident{}, err
	}
	r, _, err := s.load(ctx, key)
	if err != nil {
		return fleet.Incident{}, unavailable(err)
	}
	if r == nil {
		return fleet.Incident{}, missing(id)
	}
	return r.Incident, nil
}

// Acknowledge says that actor is on it. Doing so twice changes nothing.
// CodeConflict if somebody else did, or if the incident is resolved.
func (s *Service) Acknowledge(ctx context.Context, id, actor string) (fleet.Incident, error) {
	return s.mutate(ctx, id, actor, func(r *record) error {
		switch {
		case r.State == fleet.Resolved:
			return resolved(r)
		case r.State == fleet.Acknowledged && r.AcknowledgedBy == actor:
			return errUnchanged
		case r.State == fleet.Acknowledged:
			return fleet.Errorf(fleet.CodeConflict, "%s was acknowledged by %s at %s; assign it to take it over", r.ID, r.AcknowledgedBy, r.AcknowledgedAt.Format("2006-01-02 15:04 UTC"))
		}
		now := s.now()
		r.State, r.AcknowledgedAt, r.AcknowledgedBy, r.UpdatedAt = fleet.Acknowledged, now, actor, now
		r.note(now, ChangeAcknowledged, actor, "acknowledged")
		r.tell(ChangeAcknowledged, actor, nil)
		return nil
	})
}

// Assign gives the incident to assignee; an empty one takes it from whoever
// has it. CodeConflict if it is resolved.
func (s *Service) Assign(ctx context.Context, id, actor, assignee string) (fleet.Incident, error) {
	assignee = strings.TrimSpace(assignee)
	if len(assignee) > MaxAssignee || clip(assignee, MaxAssignee) != assignee {
		return fleet.Incident{}, fleet.Errorf(fleet.CodeInvalid, "the assignee must be a name of at most %d bytes on one line", MaxAssignee).On("assignee")
	}
	return s.mutate(ctx, id, actor, func(r *record) error {
		if r.State == fleet.Resolved {
			return resolved(r)
		}
		if r.Assignee == assignee {
			return errUnchanged
		}
		text := "assigned to " + assignee
		if assignee == "" {
			text = "no longer assigned to " + r.Assignee
		}
		r.Assignee, r.UpdatedAt = assignee, s.now()
		r.note(r.UpdatedAt, ChangeAssigned, actor, text)
		r.tell(ChangeAssigned, actor, nil)
		return nil
	})
}

// Comment adds a text to the timeline, in any state.
func (s *Service) Comment(ctx context.Context, id, actor, text string) (fleet.Incident, error) {
	text, err := prose("text", text, MaxComment)
	if err != nil {
		return fleet.Incident{}, err
	}
	if text == "" {
		return fleet.Incident{}, fleet.Errorf(fleet.CodeInvalid, "the comment is empty").On("text")
	}
	return s.mutate(ctx, id, actor, func(r *record) error {
		r.UpdatedAt = s.now()
		r.note(r.UpdatedAt, ChangeComment, actor, text)
		r.tell(ChangeComment, actor, nil)
		return nil
	})
}

// Resolve closes the incident with a verdict. CodeConflict if it is resolved
// already, CodeInvalid for an unknown verdict.
func (s *Service) Resolve(ctx context.Context, id, actor string, verdict fleet.Verdict, reason string) (fleet.Incident, error) {
	if !slices.Contains(fleet.Verdicts, verdict) {
		_, err := fleet.Parse("verdict", string(verdict), fleet.Verdicts)
		return fleet.Incident{}, fleet.Errorf(fleet.CodeInvalid, "%s", err.Error()).On("verdict")
	}
	reason, err := prose("reason", reason, MaxReason)
	if err != nil {
		return fleet.Incident{}, err
	}
	return s.mutate(ctx, id, actor, func(r *record) error {
		if r.State == fleet.Resolved {
			return resolved(r)
		}
		now := s.now()
		r.State, r.ResolvedAt, r.ResolvedBy, r.UpdatedAt = fleet.Resolved, now, actor, now
		r.Verdict, r.Reason = verdict, reason
		text := "resolved as " + strings.ReplaceAll(string(verdict), "_", " ")
		if reason != "" {
			text += ": " + reason
		}
		r.note(now, ChangeResolved, actor, text)
		r.tell(ChangeResolved, actor, nil)
		return nil
	})
}

// Reopen takes a resolution back. CodeConflict if the incident is not
// resolved, was resolved too long ago, or the device has a newer incident
// that is not resolved.
func (s *Service) Reopen(ctx context.Context, id, actor string) (fleet.Incident, error) {
	return s.mutate(ctx, id, actor, func(r *record) error {
		if r.State != fleet.Resolved {
			return fleet.Errorf(fleet.CodeConflict, "%s is %s, not resolved", r.ID, r.State)
		}
		now := s.now()
		if now.Sub(r.ResolvedAt) > s.cfg.ReopenWithin {
			return fleet.Errorf(fleet.CodeConflict, "%s was resolved more than %d days ago; it stays as it is", r.ID, int(s.cfg.ReopenWithin.Hours()/24))
		}
		if err := s.takeOver(ctx, r); err != nil {
			return err
		}
		r.note(now, ChangeReopened, actor, fmt.Sprintf("reopened; it was resolved by %s as %s", r.ResolvedBy, r.Verdict))
		r.State, r.UpdatedAt, r.Parent = fleet.Open, now, ""
		r.Reopened++
		r.AcknowledgedAt, r.AcknowledgedBy = noTime, ""
		r.ResolvedAt, r.ResolvedBy, r.Verdict, r.Reason = noTime, "", "", ""
		r.tell(ChangeReopened, actor, nil)
		return nil
	})
}

// takeOver makes a resolved incident the device's current one again.
func (s *Service) takeOver(ctx context.Context, r *record) error {
	id, revision, err := s.pointer(ctx, r.key())
	if err != nil {
		return err
	}
	if id == r.ID {
		return nil
	}
	if id != "" {
		other, _, err := s.load(ctx, id)
		if err != nil {
			return err
		}
		if other == nil || other.key() == r.key() && other.State != fleet.Resolved {
			return fleet.Errorf(fleet.CodeConflict, "device %s has the newer incident %s; work on that one", r.key(), id)
		}
	}
	return s.point(ctx, r.key(), r.ID, revision)
}

// mutate applies one decision by compare-and-set and publishes its change.
// Once the entry is written the decision stands: a change that can't be
// published now is published by the sweep.
func (s *Service) mutate(ctx context.Context, id, actor string, decide func(*record) error) (fleet.Incident, error) {
	key, err := check(id)
	if err != nil {
		return fleet.Incident{}, err
	}
	if actor == "" || clip(actor, maxActor) != actor {
		return fleet.Incident{}, fleet.Errorf(fleet.CodeInvalid, "the actor must be a name on one line").On("actor")
	}
	r, _, err := s.load(ctx, key)
	if err != nil {
		return fleet.Incident{}, unavailable(err)
	}
	if r == nil {
		return fleet.Incident{}, missing(id)
	}
	lock := s.lock(r.key())
	lock.Lock()
	defer lock.Unlock()
	return s.mutateLocked(ctx, key, decide)
}

func (s *Service) mutateLocked(ctx context.Context, key string, decide func(*record) error) (fleet.Incident, error) {
	for range maxTries {
		r, revision, err := s.load(ctx, key)
		if err != nil {
			return fleet.Incident{}, unavailable(err)
		}
		if r == nil {
			return fleet.Incident{}, missing(key)
		}
		if len(r.Outbox) >= maxOutbox {
			return fleet.Incident{}, fleet.Errorf(fleet.CodeUnavailable, "%d changes of %s wait to be published; check the broker", len(r.Outbox), key)
		}
		sent := uint64(0)
		if len(r.Outbox) > 0 {
			if sent, err = s.lastSent(ctx, key); err != nil {
				return fleet.Incident{}, unavailable(err)
			}
		}
		switch err := decide(r); {
		case errors.Is(err, errUnchanged):
			return r.Incident, nil
		case errors.Is(err, errRaced):
			continue
		case err != nil:
			return fleet.Incident{}, unavailable(err)
		}
		revision, err = s.save(ctx, r, revision)
		if errors.Is(err, errRaced) {
			continue
		}
		if err != nil {
			return fleet.Incident{}, unavailable(err)
		}
		inc := r.Incident
		if err := s.fault("decided"); err != nil {
			return inc, err
		}
		if err := s.drain(ctx, r, revision, sent); err != nil {
			s.log.Warn("change waits to be published", "incident", key, "error", err)
		}
		return inc, nil
	}
	return fleet.Incident{}, fleet.Errorf(fleet.CodeConflict, "%s keeps changing; try again", key)
}

func check(id string) (string, error) {
	number, ok := parseID(id)
	if !ok {
		return "", fleet.Errorf(fleet.CodeNotFound, "there is no incident %q; ids look like INC-12", clip(id, 40)).On("id")
	}
	return fleet.IncidentID(number), nil
}

func missing(id string) error {
	return fleet.Errorf(fleet.CodeNotFound, "there is no incident %s", clip(id, 40)).On("id")
}

func resolved(r *record) error {
	return fleet.Errorf(fleet.CodeConflict, "%s was resolved by %s as %s; reopen it first", r.ID, r.ResolvedBy, r.Verdict)
}

// unavailable keeps errors with a code and hides the broker's words.
func unavailable(err error) error {
	if fleet.CodeOf(err) != "" {
		return err
	}
	return &fleet.Error{Code: fleet.CodeUnavailable, Message: "incidents can't be read or written now; try again", Err: err}
}

// prose checks a text that a person wrote: lines are kept, control
// characters are not.
func prose(field, text string, limit int) (string, error) {
	if !utf8.ValidString(text) {
		return "", fleet.Errorf(fleet.CodeInvalid, "%s is not valid UTF-8", field).On(field)
	}
	text = strings.TrimSpace(strings.Map(func(r rune) rune {
		if r == '\n' {
			return r
		}
		return printable(r)
	}, strings.ReplaceAll(text, "\r\n", "\n")))
	if len(text) > limit {
		return "", fleet.Errorf(fleet.CodeInvalid, "%s has %d bytes, the limit is %d", field, len(text), limit).On(field)
	}
	return text, nil
}
