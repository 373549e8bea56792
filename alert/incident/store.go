package incident

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

// errRaced says that another writer was faster: load again and repeat.
var errRaced = errors.New("the incident changed meanwhile")

const (
	counterKey   = "incident"
	pointerStart = "incident-device."
)

// load reads an entry; a missing one is nil with revision 0.
func (s *Service) load(ctx context.Context, id string) (*record, uint64, error) {
	b, err := s.open(ctx)
	if err != nil {
		return nil, 0, err
	}
	entry, err := b.incident.Get(ctx, id)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read incident %s: %w", id, err)
	}
	r := &record{}
	if err := json.Unmarshal(entry.Value(), r); err != nil {
		return nil, 0, fmt.Errorf("decode incident %s: %w", id, err)
	}
	r.told = r.Changes
	return r, entry.Revision(), nil
}

// save writes an entry by compare-and-set; revision 0 means it must be new.
func (s *Service) save(ctx context.Context, r *record, revision uint64) (uint64, error) {
	raw, err := encode(r)
	if err != nil {
		return 0, err
	}
	if revision == 0 {
		revision, err = s.buckets.incident.Create(ctx, r.ID, raw)
	} else {
		revision, err = s.buckets.incident.Update(ctx, r.ID, raw, revision)
	}
	if errors.Is(err, jetstream.ErrKeyExists) {
		return 0, errRaced
	}
	if err != nil {
		return 0, fmt.Errorf("write incident %s: %w", r.ID, err)
	}
	r.told = r.Changes
	s.view.put(r, revision)
	return revision, nil
}

// drain publishes the outbox in order and empties it. sent is the number of
// the last change that is known to be out.
func (s *Service) drain(ctx context.Context, r *record, revision uint64, sent uint64) error {
	if len(r.Outbox) == 0 {
		return nil
	}
	for _, p := range r.Outbox {
		if p.Number <= sent {
			continue
		}
		if err := s.fault("publish"); err != nil {
			return err
		}
		if err := s.publish(ctx, r, p); err != nil {
			return err
		}
	}
	if err := s.fault("published"); err != nil {
		return err
	}
	r.Outbox = nil
	if _, err := s.save(ctx, r, revision); err != nil && !errors.Is(err, errRaced) {
		return err
	}
	return nil // who was faster has the outbox and finds it published
}

func (s *Service) publish(ctx context.Context, r *record, p pending) error {
	change := r.change(p)
	raw, err := encode(change)
	if err != nil {
		return err
	}
	if p.Change == ChangeResolved {
		if err := s.publishVerdicts(ctx, r, change.ID); err != nil {
			return err
		}
	}
	msg := &nats.Msg{Subject: bus.SubjectIncident + "." + r.ID, Data: raw, Header: nats.Header{}}
	msg.Header.Set(jetstream.MsgIDHeader, change.ID)
	if _, err := s.deps.Bus.Core.PublishMsg(ctx, msg); err != nil {
		return fmt.Errorf("publish change %s: %w", change.ID, err)
	}
	s.metrics.changes.WithLabelValues(p.Change).Inc()
	return nil
}

// publishVerdicts puts the verdict on the FLEET log, for detection depends
// on nothing else.
func (s *Service) publishVerdicts(ctx context.Context, r *record, id string) error {
	devices := []string{r.Device}
	if r.grouped() && len(r.Devices) > 0 {
		devices = r.Devices[:min(len(r.Devices), maxVerdicts)]
	}
	for _, device := range devices {
		for _, rule := range r.Rules {
			if err := s.publishVerdict(ctx, fleet.VerdictChange{Device: device, Rule: rule, Verdict: r.Verdict}, id); err != nil {
				return fmt.Errorf("publish verdict of %s: %w", r.ID, err)
			}
		}
	}
	return nil
}

// maxVerdicts bounds how many devices a group's verdict speaks of.
const maxVerdicts = 200

func (s *Service) publishVerdict(ctx context.Context, v fleet.VerdictChange, id string) error {
	if v.Device == fleet.SystemDevice {
		return nil
	}
	raw, err := encode(fleet.Control{Verdict: &v})
	if err != nil {
		return err
	}
	msg := &nats.Msg{Subject: bus.SubjectControl + ".verdict." + v.Device, Data: raw, Header: nats.Header{}}
	msg.Header.Set(jetstream.MsgIDHeader, id+"."+v.Device+"."+v.Rule)
	_, err = s.deps.Bus.Fleet.PublishMsg(ctx, msg)
	return err //nolint:wrapcheck // the caller says what it was
}

// lastSent is the number of the last change of an incident that is on the
// INCIDENTS stream, 0 if there is none.
func (s *Service) lastSent(ctx context.Context, id string) (uint64, error) {
	msg, err := s.buckets.stream.GetLastMsgForSubject(ctx, bus.SubjectIncident+"."+id)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read last change of %s: %w", id, err)
	}
	_, number, _ := strings.Cut(msg.Header.Get(jetstream.MsgIDHeader), ".")
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		return 0, nil //nolint:nilerr // a foreign message says nothing about ours
	}
	return n, nil
}

// pointer reads which incident is the current one of a device; revision 0
// means that there is none yet.
func (s *Service) pointer(ctx context.Context, device string) (string, uint64, error) {
	entry, err := s.buckets.counter.Get(ctx, pointerKey(device))
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return "", 0, nil
	}
	if err != nil {
		return "", 0, fmt.Errorf("read current incident of %s: %w", device, err)
	}
	return string(entry.Value()), entry.Revision(), nil
}

func (s *Service) point(ctx context.Context, device, id string, revision uint64) error {
	return s.cas(ctx, pointerKey(device), id, revision)
}

func (s *Service) cas(ctx context.Context, key, value string, revision uint64) error {
	var err error
	if revision == 0 {
		_, err = s.buckets.counter.Create(ctx, key, []byte(value))
	} else {
		_, err = s.buckets.counter.Update(ctx, key, []byte(value), revision)
	}
	if errors.Is(err, jetstream.ErrKeyExists) {
		return errRaced
	}
	if err != nil {
		return fmt.Errorf("write counter %s: %w", key, err)
	}
	return nil
}

// draw takes the next incident number. Numbers of stored incidents are never
// drawn again, even if the counter was lost.
func (s *Service) draw(ctx context.Context) (uint64, error) {
	for {
		var last, revision uint64
		entry, err := s.buckets.counter.Get(ctx, counterKey)
		switch {
		case errors.Is(err, jetstream.ErrKeyNotFound):
		case err != nil:
			return 0, fmt.Errorf("read incident counter: %w", err)
		default:
			revision = entry.Revision()
			if last, err = strconv.ParseUint(string(entry.Value()), 10, 64); err != nil {
				return 0, fmt.Errorf("decode incident counter: %w", err)
			}
		}
		next := max(last, s.view.highest()) + 1
		err = s.cas(ctx, counterKey, strconv.FormatUint(next, 10), revision)
		if errors.Is(err, errRaced) {
			continue
		}
		return next, err
	}
}

// current finds the newest incident of a device. Its result may be resolved.
// reserved is a number that was drawn for the device and has no entry yet;
// the newest incident is then the one before it.
func (s *Service) current(ctx context.Context, device string) (r *record, revision, reserved, pointerRevision uint64, err error) {
	id, pointerRevision, err := s.pointer(ctx, device)
	if err != nil {
		return nil, 0, 0, 0, err
	}
	if id == "" {
		id = s.view.newest(device)
	}
	if id == "" {
		return nil, 0, 0, pointerRevision, nil
	}
	r, revision, err = s.load(ctx, id)
	switch {
	case err != nil:
		return nil, 0, 0, 0, err
	case r == nil:
		reserved, _ = parseID(id)
		if before := s.view.newest(device); before != "" {
			r, revision, err = s.load(ctx, before)
		}
		return r, revision, reserved, pointerRevision, err
	case r.key() != device: // the counter bucket was lost and its numbers came again
		return nil, 0, 0, pointerRevision, nil
	}
	return r, revision, 0, pointerRevision, nil
}

// reserve makes a number the current incident of the device.
func (s *Service) reserve(ctx context.Context, device string, pointerRevision uint64) (uint64, error) {
	number, err := s.draw(ctx)
	if err != nil {
		return 0, err
	}
	if err := s.fault("drawn"); err != nil {
		return 0, err
	}
	if err := s.point(ctx, device, fleet.IncidentID(number), pointerRevision); err != nil {
		return 0, err
	}
	return number, s.fault("reserved")
}

// parseID reads INC-12 or 12.
func parseID(id string) (uint64, bool) {
	n, err := strconv.ParseUint(strings.TrimPrefix(id, "INC-"), 10, 63)
	return n, err == nil && n > 0
}
