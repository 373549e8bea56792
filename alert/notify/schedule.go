package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"cordon/internal/fleet"
)

// timekeeper looks every Tick for what time alone brings: silences and
// inhibitions that end, escalations, reminders. What it makes has an id of
// its own and a record, so that it happens once however often it looks.
func (s *Service) timekeeper(ctx context.Context) error {
	ticker := time.NewTicker(s.cfg.Tick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if err := s.tick(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("escalations and reminders wait", "error", err)
		}
	}
}

func (s *Service) tick(ctx context.Context) error {
	return errors.Join(s.releaseHeld(ctx), s.remind(ctx))
}

// releaseHeld tells what a silence or another incident kept back, once that
// is over and the incident is still open. Of several changes of one incident
// the newest is told.
func (s *Service) releaseHeld(ctx context.Context) error {
	var errs []error
	released := map[string]string{}
	for _, d := range s.records.all() { // newest first
		if d.State != stateSuppressed || d.HeldBy == "" {
			continue
		}
		inc, open := s.incidents.get(d.Incident)
		key := d.Incident + " " + d.Receiver
		switch {
		case !open:
			d.HeldBy, d.Why, d.UpdatedAt = "", d.Why+"; over meanwhile", s.now()
			errs = append(errs, s.store(ctx, d))
			continue
		case released[key] != "":
			d.HeldBy, d.Why, d.UpdatedAt = "", d.Why+"; told with "+released[key], s.now()
			errs = append(errs, s.store(ctx, d))
			continue
		}
		if by, _ := s.held(inc); by != "" || inc.State != fleet.Open {
			continue
		}
		w := s.worker(d.Receiver)
		if w == nil {
			continue
		}
		released[key] = d.ID
		errs = append(errs, s.release(ctx, w, d))
	}
	return errors.Join(errs...)
}

func (s *Service) release(ctx context.Context, w *worker, d fleet.Delivery) error {
	inc, err := s.incident(ctx, d.Incident)
	if err != nil {
		return err
	}
	id := d.ID[:len(d.ID)-len(d.Receiver)-1]
	it := newItem(fleet.IncidentChange{ID: id, Change: d.Change, Incident: inc, Actor: "cordon"}, w.receiver.Name, s.now())
	d.State, d.HeldBy, d.UpdatedAt = statePending, "", s.now()
	d.Why += "; told when that was over"
	if err := s.store(ctx, d); err != nil {
		return err
	}
	return s.queue(ctx, w, it, it.ID)
}

// incident reads an incident as it is now.
func (s *Service) incident(ctx context.Context, id string) (fleet.Incident, error) {
	b, err := s.open(ctx)
	if err != nil {
		return fleet.Incident{}, err
	}
	entry, err := b.incident.Get(ctx, id)
	if err != nil {
		return fleet.Incident{}, fmt.Errorf("read incident %s: %w", id, err)
	}
	var inc fleet.Incident
	if err := json.Unmarshal(entry.Value(), &inc); err != nil {
		return inc, fmt.Errorf("read incident %s: %w", id, err)
	}
	return inc, nil
}

// remind escalates what nobody acknowledged, and repeats it.
func (s *Service) remind(ctx context.Context) error {
	timed := slices.ContainsFunc(s.cfg.Policy.Routes, func(r Route) bool {
		return r.Escalate != nil || r.Group != nil && r.Group.Repeat > 0
	})
	if !timed {
		return nil
	}
	var errs []error
	now := s.now()
	var names []string
	for _, w := range s.workers() {
		names = append(names, w.receiver.Name)
	}
	for _, inc := range s.openIncidents() {
		since, told := s.records.firstTold(inc.ID)
		if inc.State != fleet.Open || !told {
			continue
		}
		if by, _ := s.held(inc); by != "" {
			continue
		}
		for _, c := range s.cfg.Policy.choose(inc, now, names) {
			if c.route == nil {
				continue
			}
			if e := c.route.Escalate; e != nil && now.Sub(since) >= time.Duration(e.After) {
				for _, name := range e.Receivers {
					errs = append(errs, s.tellAgain(ctx, inc, name, changeUnacknowledged, fmt.Sprintf("%s.unacknowledged-%d", inc.ID, inc.Reopened),
						choice{name, c.route, fmt.Sprintf("route %s: nobody acknowledged within %s", c.route.Name, time.Duration(e.After))}))
				}
			}
			if g := c.route.Group; g != nil && g.Repeat > 0 && s.records.toldOf(inc.ID, c.receiver) {
				if n := int(now.Sub(since) / time.Duration(g.Repeat)); n > 0 {
					errs = append(errs, s.tellAgain(ctx, inc, c.receiver, changeReminder, fmt.Sprintf("%s.reminder-%d-%d", inc.ID, inc.Reopened, n),
						choice{c.receiver, c.route, fmt.Sprintf("route %s: still open, told every %s", c.route.Name, time.Duration(g.Repeat))}))
				}
			}
		}
	}
	return errors.Join(errs...)
}

func (s *Service) tellAgain(ctx context.Context, inc fleet.Incident, receiver, change, id string, c choice) error {
	if _, known := s.records.get(id + "." + receiver); known {
		return nil
	}
	w := s.worker(receiver)
	if w == nil {
		return nil
	}
	if ok, _ := w.receiver.hears(inc.Severity, change); !ok {
		return nil
	}
	whole, err := s.incident(ctx, inc.ID)
	if errors.Is(err, jetstream.ErrKeyNotFound) || err == nil && whole.State != fleet.Open {
		return nil
	}
	if err != nil {
		return err
	}
	return s.enqueue(ctx, w, fleet.IncidentChange{ID: id, Change: change, Incident: whole, Actor: "cordon"}, c)
}
