package api

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/internal/fleet"
)

// told stands in for the alert stage, which this package may not import.
type told struct{ *alerts }

func (told) Route(i fleet.Incident, change string, _ time.Time) []RoutedTo {
	return []RoutedTo{{Receiver: "soc", Told: true, Why: string(i.Severity) + " " + change}}
}

func (told) Policy() map[string]any        { return map[string]any{"routes": []any{}} }
func (told) Silences(bool) []fleet.Silence { return nil }

func (told) AddSilence(_ context.Context, s fleet.Silence) (fleet.Silence, error) {
	s.ID = "SIL-1"
	return s, nil
}

func (told) EndSilence(_ context.Context, id, _ string) (fleet.Silence, error) {
	return fleet.Silence{}, fleet.Errorf(fleet.CodeNotFound, "there is no silence %q", id)
}

func (told) SetReceiver(context.Context, ReceiverSettings, string, string) error { return nil }
func (told) RemoveReceiver(context.Context, string) error                        { return nil }
func (told) EnableReceiver(context.Context, string, string) error                { return nil }

func (told) TestReceiver(_ context.Context, name, actor string) (fleet.Delivery, error) {
	return fleet.Delivery{Receiver: name, ActionBy: actor, State: "delivered"}, nil
}

func (told) Replay(_ context.Context, id, _ string) (fleet.Delivery, error) {
	return fleet.Delivery{ID: id, State: "pending"}, nil
}

func (a told) SetTags(_ context.Context, id, _ string, tags []string) (fleet.Incident, error) {
	return a.change(id, func(i *fleet.Incident) { i.Tags = tags })
}

func (a told) SetTicket(_ context.Context, id, _, ticket string) (fleet.Incident, error) {
	return a.change(id, func(i *fleet.Incident) { i.Ticket = ticket })
}

func (told) Handover(from, to time.Time) Handover { return Handover{From: from, To: to} }
func (told) Risks(int) []Risk                     { return nil }

func (told) Evidence(context.Context, string, string, bool) (string, []byte, error) {
	return "INC-1.1.zip", []byte("PK"), nil
}

func TestAlerts_routeOfAnAPIWithoutTheStage(t *testing.T) {
	a := &API{}
	_, err := a.routeAlert(t.Context(), &routeAlertInput{})
	require.Equal(t, fleet.CodeUnavailable, fleet.CodeOf(err))
}
