package fleet_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"cordon/internal/fleet"
)

func TestSeenFilter_dropsCopies(t *testing.T) {
	f := fleet.NewSeenFilter()
	for seq := uint64(1); seq <= 10_000; seq++ {
		require.False(t, f.Seen("d", "b", seq))
		require.True(t, f.Seen("d", "b", seq))
	}
	require.True(t, f.Seen("d", "b", 10_000-fleet.SeenWindow), "older than the window counts as seen")
	require.False(t, f.Seen("d", "b2", 1), "another boot counts from the start")
	require.False(t, f.Seen("e", "b", 1), "another device as well")
	require.False(t, f.Seen("d", "", 1), "a message without boot is never a copy")
	require.False(t, f.Seen("d", "", 1))
	require.False(t, f.Seen("d", "b", 1<<63), "a jump empties the window")
	require.False(t, f.Seen("d", "b", 1<<63-1))
	f.Forget("d")
	require.False(t, f.Seen("d", "b", 1))
}

func TestSeenFilter_remembersTheBootsUsedLast(t *testing.T) {
	f := fleet.NewSeenFilter()
	for i := range fleet.SeenBoots {
		f.Seen("d", fmt.Sprint(i), 1)
	}
	require.True(t, f.Seen("d", "0", 1), "used again")
	f.Seen("d", "another", 1)
	require.True(t, f.Seen("d", "0", 1))
	require.False(t, f.Seen("d", "1", 1), "used longest ago, replaced")
}

// The filter agrees with a set that remembers everything, and a filter
// restored at any point goes on like the one it came from.
func TestSeenFilter_agreesWithASet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := fleet.NewSeenFilter()
		set := map[string]bool{}
		high := map[string]uint64{}
		for range rapid.IntRange(1, 300).Draw(t, "n") {
			device := rapid.SampledFrom([]string{"d", "e"}).Draw(t, "device")
			boot := rapid.SampledFrom([]string{"x", "y"}).Draw(t, "boot")
			key := device + boot
			seq := high[key] + rapid.SampledFrom([]uint64{1, 1, 1, 2, 63, 64, 65, 4095, 4096, 5000}).Draw(t, "step")
			if back := rapid.Uint64Range(0, 6000).Draw(t, "back"); rapid.Bool().Draw(t, "resend") && seq > back {
				seq -= back
			}
			id := fmt.Sprint(key, seq)
			want := set[id] || high[key] >= fleet.SeenWindow && seq <= high[key]-fleet.SeenWindow
			if got := f.Seen(device, boot, seq); got != want {
				t.Fatalf("Seen(%s, %s, %d) = %v, want %v; high %d", device, boot, seq, got, want, high[key])
			}
			set[id], high[key] = true, max(high[key], seq)
			if rapid.IntRange(0, 9).Draw(t, "restore") == 0 {
				raw, err := f.MarshalBinary()
				if err != nil {
					t.Fatal(err)
				}
				f = fleet.NewSeenFilter()
				if err := f.UnmarshalBinary(raw); err != nil {
					t.Fatal(err)
				}
				again, _ := f.MarshalBinary()
				if string(again) != string(raw) {
					t.Fatal("a restored filter writes other bytes")
				}
			}
		}
	})
}

func TestSeenFilter_refusesDamage(t *testing.T) {
	f := fleet.NewSeenFilter()
	f.Seen("device", "boot", 77)
	raw, err := f.MarshalBinary()
	require.NoError(t, err)
	require.Less(t, len(raw), 64)
	for n := range raw {
		require.Error(t, fleet.NewSeenFilter().UnmarshalBinary(raw[:n]), n)
	}
	require.Error(t, fleet.NewSeenFilter().UnmarshalBinary(append(raw, 0)))
	require.Error(t, fleet.NewSeenFilter().UnmarshalBinary([]byte{9}))
}
