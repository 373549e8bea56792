package identity

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/internal/fleet"
)

// BenchmarkRegistry_list pages through a view of 100,000 devices.
func BenchmarkRegistry_list(b *testing.B) {
	r := &Registry{ready: make(chan struct{}), devices: map[string]*held{}, published: map[uint64]bool{}}
	for i := range 100_000 {
		r.put(fleet.Device{
			ID: fmt.Sprintf("device-%06d", i), State: fleet.Active, Cohort: fmt.Sprintf("c%d", i%20), Site: "s", Model: "m", EnrolledAt: time.Unix(int64(i), 0),
		}, uint64(i+1))
	}
	r.finishLoading()
	middle := position{"", "device-050000"}.cursor()
	for name, c := range map[string]struct {
		filter       Filter
		sort, cursor string
	}{
		"by_id":    {Filter{}, "", middle},
		"filtered": {Filter{Cohort: "c7"}, "", middle},
		"query":    {Filter{Query: "device-0999"}, "", ""},
		"sorted":   {Filter{}, "-enrolled_at", ""},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				page, err := r.List(c.filter, c.sort, c.cursor, 100)
				require.NoError(b, err)
				require.NotEmpty(b, page.Items)
			}
		})
	}
	b.Run("facets", func(b *testing.B) {
		for b.Loop() {
			r.version++
			require.Len(b, r.Facets()["cohort"], 20)
		}
	})
}
