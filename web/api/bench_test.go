package api

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/internal/fleet"
)

// many is a registry of 100,000 devices.
type many struct {
	Devices
	list  []fleet.Device
	index map[string]int
}

func (m many) All(visit func(fleet.Device) bool) {
	for _, d := range m.list {
		if !visit(d) {
			return
		}
	}
}

func (m many) Get(id string) (fleet.Device, bool) {
	i, ok := m.index[id]
	if !ok {
		return fleet.Device{}, false
	}
	return m.list[i], true
}

type noHistory struct {
	History
	seen map[string]time.Time
}

func (h noHistory) LastSeen(context.Context) (map[string]time.Time, error) { return h.seen, nil }

func hundredThousand() *API {
	m := many{index: map[string]int{}}
	seen := map[string]time.Time{}
	for i := range 100_000 {
		d := fleet.Device{ID: fmt.Sprintf("device-%06d", i), State: fleet.Active, Cohort: fmt.Sprintf("cohort-%d", i%40), Site: fmt.Sprintf("site-%d", i%25), EnrolledAt: time.Unix(int64(i), 0)}
		m.index[d.ID] = i
		m.list = append(m.list, d)
		seen[d.ID] = time.Now().Add(-time.Duration(i) * time.Second)
	}
	f := &alerts{held: map[string]fleet.Quarantine{}}
	return New(DefaultConfig(), Deps{
		Devices: m, Incidents: f, Quarantines: cells{f}, Rules: f, History: noHistory{seen: seen}, Log: slog.New(slog.DiscardHandler),
	})
}

// BenchmarkDevices_hundredThousand shows the cost of one page of the device
// list and of counting the fleet anew.
func BenchmarkDevices_hundredThousand(b *testing.B) {
	a := hundredThousand()
	for _, c := range []struct {
		name string
		in   listDevicesInput
	}{
		{"by id", listDevicesInput{Sort: "id"}},
		{"last seen", listDevicesInput{Sort: "-last_seen_at"}},
		{"search", listDevicesInput{Sort: "id", Query: "site-7 99"}},
		{"silent in a cohort", listDevicesInput{Sort: "site", Status: StatusSilent, Cohort: "cohort-3"}},
	} {
		b.Run(c.name, func(b *testing.B) {
			c.in.Limit = 50
			for b.Loop() {
				_, err := a.listDevices(b.Context(), &c.in)
				require.NoError(b, err)
			}
		})
	}
	b.Run("count the fleet", func(b *testing.B) {
		for b.Loop() {
			a.view.count(b.Context(), time.Now())
		}
	})
}
