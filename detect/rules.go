package detect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"cordon/detect/rule"
	"cordon/internal/bus"
	"cordon/internal/fleet"
)

// packActor is who changed a rule that came with the program.
const packActor = "cordon"

// merge reads folders of rules; a later one wins.
func merge(folders []fs.FS) ([]*rule.Rule, error) {
	byID := map[string]*rule.Rule{}
	var faults []error
	for _, folder := range folders {
		rules, err := rule.ParseFS(folder)
		if err != nil {
			faults = append(faults, err)
		}
		for _, r := range rules {
			byID[r.ID] = r
		}
	}
	out := make([]*rule.Rule, 0, len(byID))
	for _, r := range byID {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b *rule.Rule) int { return strings.Compare(a.ID, b.ID) })
	return out, errors.Join(faults...)
}

// offerRules puts rules of the pack that changed on the log, and takes those
// away that are gone from it. A mode that an operator set stays.
func (d *Detector) offerRules(ctx context.Context, pack []*rule.Rule) error {
	bucket, err := d.deps.Bus.Bucket(ctx, bus.BucketRule)
	if err != nil {
		return err
	}
	known, err := readChanges(ctx, bucket)
	if err != nil {
		return err
	}
	for _, r := range pack {
		old, ok := known[r.ID]
		delete(known, r.ID)
		if ok && old.Source == r.Source {
			continue
		}
		change := fleet.RuleChange{ID: r.ID, Source: r.Source, Mode: r.Mode, Actor: packActor}
		if ok && old.Source != "" && old.Actor != packActor && rule.CheckMode(r, old.Mode) == nil {
			change.Mode, change.Actor, change.Reason = old.Mode, old.Actor, old.Reason
		}
		if err := d.putRule(ctx, bucket, change); err != nil {
			return err
		}
	}
	for id, old := range known {
		if old.Source == "" {
			continue
		}
		if err := d.putRule(ctx, bucket, fleet.RuleChange{ID: id, Actor: packActor, Reason: "no longer among the rules"}); err != nil {
			return err
		}
	}
	return nil
}

// putRule puts a rule change on the log and then into the bucket. Should the
// second fail, the next start does both again, which changes nothing.
func (d *Detector) putRule(ctx context.Context, bucket jetstream.KeyValue, change fleet.RuleChange) error {
	_, err := d.publishRule(ctx, bucket, change)
	return err
}

func (d *Detector) publishRule(ctx context.Context, bucket jetstream.KeyValue, change fleet.RuleChange) (seq uint64, err error) {
	control, err := json.Marshal(fleet.Control{Rule: &change})
	if err != nil {
		return 0, fmt.Errorf("encode rule %s: %w", change.ID, err)
	}
	ack, err := d.deps.Bus.Fleet.Publish(ctx, bus.SubjectControl+".rule."+change.ID, control)
	if err != nil {
		return 0, fmt.Errorf("put rule %s on the log: %w", change.ID, err)
	}
	entry, err := json.Marshal(change)
	if err != nil {
		return 0, fmt.Errorf("encode rule %s: %w", change.ID, err)
	}
	if _, err := bucket.Put(ctx, change.ID, entry); err != nil {
		return 0, fmt.Errorf("write rule %s: %w", change.ID, err)
	}
	return ack.Sequence, nil
}

func readChanges(ctx context.Context, bucket jetstream.KeyValue) (map[string]fleet.RuleChange, error) {
	out := map[string]fleet.RuleChange{}
	keys, err := bucket.Keys(ctx)
	if errors.Is(err, jetstream.ErrNoKeysFound) {
		return out, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list rules: %w", err)
	}
	for _, key := range keys {
		entry, err := bucket.Get(ctx, key)
		if err != nil {
			return nil, fmt.Errorf("read rule %s: %w", key, err)
		}
		var change fleet.RuleChange
		if err := json.Unmarshal(entry.Value(), &change); err != nil {
			return nil, fmt.Errorf("decode rule %s: %w", key, err)
		}
		out[key] = change
	}
	return out, nil
}

// Rules lists the rules in force, by id.
func (d *Detector) Rules() []fleet.Rule {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.engine.Rules()
}

// SetMode changes what a rule may do: it goes on the log and into bucket
// "rule", and SetMode returns once the engine has it. Codes: not_found,
// invalid, forbidden (arming a rule about outside evidence), unavailable.
func (d *Detector) SetMode(ctx context.Context, id string, mode fleet.Mode, actor, reason string) (fleet.Rule, error) {
	if _, err := fleet.Parse("mode", string(mode), fleet.Modes); err != nil {
		return fleet.Rule{}, fleet.Errorf(fleet.CodeInvalid, "%w", err).On("mode")
	}
	bucket, err := d.deps.Bus.Bucket(ctx, bus.BucketRule)
	if err != nil {
		return fleet.Rule{}, err
	}
	change, err := readChange(ctx, bucket, id)
	if err != nil {
		return fleet.Rule{}, err
	}
	r, err := rule.Parse(id, []byte(change.Source))
	if err != nil {
		return fleet.Rule{}, fmt.Errorf("parse rule %s: %w", id, err)
	}
	if err := rule.CheckMode(r, mode); err != nil {
		return fleet.Rule{}, fleet.Errorf(fleet.CodeForbidden, "%w", err).On("mode")
	}
	change.Mode, change.Actor, change.Reason = mode, actor, reason
	seq, err := d.publishRule(ctx, bucket, change)
	if err != nil {
		return fleet.Rule{}, err
	}
	if d.await(ctx, seq) {
		for _, have := range d.Rules() {
			if have.ID == id {
				return have, nil
			}
		}
	}
	out := r.Fleet()
	out.Mode, out.ChangedBy, out.ChangedAt, out.Reason = mode, actor, d.deps.Clock().UTC(), reason
	return out, nil
}

func readChange(ctx context.Context, bucket jetstream.KeyValue, id string) (fleet.RuleChange, error) {
	var change fleet.RuleChange
	entry, err := bucket.Get(ctx, id)
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound), errors.Is(err, jetstream.ErrInvalidKey):
		return change, fleet.Errorf(fleet.CodeNotFound, "there is no rule %q", id).On("id")
	case err != nil:
		return change, fmt.Errorf("read rule %s: %w", id, err)
	}
	if err := json.Unmarshal(entry.Value(), &change); err != nil {
		return change, fmt.Errorf("decode rule %s: %w", id, err)
	}
	if change.Source == "" {
		return change, fleet.Errorf(fleet.CodeNotFound, "there is no rule %q", id).On("id")
	}
	return change, nil
}

// await waits until the engine has applied a stream sequence; false when that
// takes longer than two seconds or no engine runs here.
func (d *Detector) await(ctx context.Context, seq uint64) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for {
		d.state.Lock()
		running, applied, moved := d.told.running, d.told.applied, d.moved
		d.state.Unlock()
		if applied >= seq {
			return true
		}
		if !running {
			return false
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return false
		}
	}
}
