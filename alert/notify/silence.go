package notify

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"cordon/internal/fleet"
)

// longestSilence bounds how long something can be silenced at once.
const longestSilence = 90 * 24 * time.Hour

// maxSilences bounds how many there can be.
const maxSilences = 1000

// Silences lists the silences, those of the settings file too; the ones that
// end last come first. Ended ones are left out unless all.
func (s *Service) Silences(all bool) []fleet.Silence {
	now := s.now()
	out := []fleet.Silence{}
	for _, sil := range s.everySilence() {
		if all || now.Before(sil.EndsAt) {
			out = append(out, sil)
		}
	}
	slices.SortFunc(out, func(a, b fleet.Silence) int {
		return cmp.Or(b.EndsAt.Compare(a.EndsAt), strings.Compare(a.ID, b.ID))
	})
	return out
}

func (s *Service) everySilence() []fleet.Silence {
	out := slices.Clone(s.cfg.Policy.Silences)
	for i := range out {
		out[i].ID = cmp.Or(out[i].ID, fmt.Sprintf("file-%d", i+1))
	}
	return append(out, s.silences.all()...)
}

// AddSilence keeps notifications back that match, until it ends.
func (s *Service) AddSilence(ctx context.Context, sil fleet.Silence) (fleet.Silence, error) {
	now := s.now()
	sil.CreatedAt, sil.EndedBy = now, ""
	if sil.StartsAt.IsZero() {
		sil.StartsAt = now
	}
	if err := CheckSilence(sil); err != nil {
		return sil, err
	}
	if !now.Before(sil.EndsAt) || sil.EndsAt.Sub(sil.StartsAt) > longestSilence {
		return sil, fleet.Errorf(fleet.CodeInvalid, "it must end in the future, and at most %d days after it starts", int(longestSilence.Hours()/24)).On("ends_at")
	}
	if len(s.silences.all()) >= maxSilences {
		return sil, fleet.Errorf(fleet.CodeTooMany, "there are %d silences; end some", maxSilences)
	}
	sil.ID = "SIL-" + strings.ToLower(rand.Text()[:8])
	return sil, s.putSilence(ctx, sil)
}

// EndSilence ends a silence now; what it kept back and still matters is then
// told. CodeNotFound if there is none, CodeConflict if it has ended or the
// settings file has it.
func (s *Service) EndSilence(ctx context.Context, id, actor string) (fleet.Silence, error) {
	sil, ok := s.silences.get(id)
	now := s.now()
	switch {
	case !ok && slices.ContainsFunc(s.everySilence(), func(o fleet.Silence) bool { return o.ID == id }):
		return sil, fleet.Errorf(fleet.CodeConflict, "silence %s is in the settings file; end it there", id)
	case !ok:
		return sil, fleet.Errorf(fleet.CodeNotFound, "there is no silence %q", cut(id, 40)).On("id")
	case !now.Before(sil.EndsAt):
		return sil, fleet.Errorf(fleet.CodeConflict, "silence %s has ended already", id)
	}
	sil.EndsAt, sil.EndedBy = now, actor
	if sil.StartsAt.After(now) {
		sil.StartsAt = now.Add(-time.Nanosecond)
	}
	return sil, s.putSilence(ctx, sil)
}

func (s *Service) putSilence(ctx context.Context, sil fleet.Silence) error {
	b, err := s.open(ctx)
	if err != nil {
		return err
	}
	raw, err := json.Marshal(sil)
	if err != nil {
		return fmt.Errorf("encode silence %s: %w", sil.ID, err)
	}
	if _, err := b.silence.Put(ctx, sil.ID, raw); err != nil {
		return fmt.Errorf("write silence %s: %w", sil.ID, err)
	}
	s.silences.put(sil.ID, sil)
	return nil
}

// held says what keeps notifications of an incident back now.
func (s *Service) held(inc fleet.Incident) (by, why string) {
	if by, why = silencedBy(s.everySilence(), inc, s.now()); by != "" {
		return by, why
	}
	if len(s.cfg.Policy.Inhibit) == 0 {
		return "", ""
	}
	return s.cfg.Policy.inhibitedBy(inc, s.openIncidents())
}

// Route says who would be told of such a change of an incident now, and why.
func (s *Service) Route(inc fleet.Incident, change string, at time.Time) []Told {
	if at.IsZero() {
		at = s.now()
	}
	var receivers []Receiver
	for _, w := range s.workers() {
		receivers = append(receivers, w.receiver)
	}
	return s.cfg.Policy.told(inc, change, at, receivers, func(inc fleet.Incident) (string, string) {
		if by, why := silencedBy(s.everySilence(), inc, at); by != "" {
			return by, why
		}
		return s.cfg.Policy.inhibitedBy(inc, s.openIncidents())
	})
}

// Policy is what the settings say.
func (s *Service) Policy() Policy { return s.cfg.Policy }
