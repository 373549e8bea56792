package engine_test

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"cordon/detect/engine"
	"cordon/internal/fleet"
)

// logSeed is the seed of the log: CORDON_SEED, a random one in a soak, else
// always the same. It is printed, so that a failure can be had again.
func logSeed(t *testing.T, fixed uint64) uint64 {
	t.Helper()
	seed := fixed
	if text := os.Getenv("CORDON_SEED"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
		seed = n
	} else if os.Getenv("CORDON_SOAK") == "1" {
		seed = rapid.Uint64().Example()
	}
	t.Logf("seed of the log: CORDON_SEED=%d", seed)
	return seed
}

// alone is a configuration under which devices do not look at each other:
// many silent at once are still each its own. What compares devices belongs
// into a second stage behind the shards.
func alone() engine.Config {
	cfg := testConfig()
	cfg.FleetSilent = 1 << 30
	return cfg
}

// judge runs a log through one engine in batches, restarting before some
// records and resending some behind the filter.
type judge struct {
	cfg      engine.Config
	batch    int
	restarts []int
	repeats  []int
}

func (j judge) run(t require.TestingT, log []fleet.Record) []fleet.Finding {
	e, seen := engine.New(j.cfg), fleet.NewSeenFilter()
	var found, batch []fleet.Finding
	for i, r := range log {
		if slices.Contains(j.restarts, i) {
			state := e.Snapshot()
			e = engine.New(j.cfg)
			require.NoError(t, e.Restore(state))
		}
		for range 1 + len(slices.DeleteFunc(slices.Clone(j.repeats), func(n int) bool { return n != i })) {
			if r.Device == "" || !seen.Seen(r.Device, r.Boot, r.Seq) {
				batch = append(batch, e.Apply(r)...)
			}
			if r.Device == "" {
				break // Cordon's own records are not resent
			}
		}
		if i%j.batch == j.batch-1 {
			found, batch = append(found, batch...), nil
		}
	}
	return append(found, batch...)
}

// TestEngine_batchesShardsRestartsResends draws everything at once.
func TestEngine_batchesShardsRestartsResends(t *testing.T) {
	log := stormyLog(t, logSeed(t, 7))
	want := lines(t, judge{cfg: alone(), batch: 1}.run(t, log))
	slices.Sort(want)
	require.NotEmpty(t, want)
	rapid.Check(t, func(t *rapid.T) {
		shards := rapid.IntRange(1, 4).Draw(t, "shards")
		var got []string
		for shard := range shards {
			var mine []fleet.Record
			for _, r := range log {
				if r.Device == "" || int(hash(r.Device)%uint64(shards)) == shard {
					mine = append(mine, r)
				}
			}
			record := rapid.IntRange(0, len(mine)-1)
			j := judge{
				cfg: alone(), batch: rapid.IntRange(1, 1000).Draw(t, "batch"),
				restarts: rapid.SliceOfN(record, 0, 1).Draw(t, "restart before record"),
				repeats:  rapid.SliceOfN(record, 0, 6).Draw(t, "redeliver record"),
			}
			got = append(got, lines(t, j.run(t, mine))...)
		}
		slices.Sort(got)
		require.Equal(t, want, got)
	})
}

// TestEngine_restartBeforeEveryRecord restarts so often that every record of
// a stretch is the first after a restart.
func TestEngine_restartBeforeEveryRecord(t *testing.T) {
	log := stormyLog(t, logSeed(t, 9))
	want := lines(t, judge{cfg: testConfig(), batch: 1}.run(t, log))
	every := 97
	if os.Getenv("CORDON_SOAK") == "1" {
		every = 1
	}
	var restarts []int
	for i := 0; i < len(log); i += every {
		restarts = append(restarts, i)
	}
	cfg := testConfig()
	e := engine.New(cfg)
	var found []fleet.Finding
	next := 0
	for i, r := range log {
		if next < len(restarts) && restarts[next] == i {
			next++
			state := e.Snapshot()
			e = engine.New(cfg)
			require.NoError(t, e.Restore(state))
		}
		found = append(found, e.Apply(r)...)
	}
	require.Equal(t, want, lines(t, found))
}

// TestSentences_areShort holds every finding of the storm to its words.
func TestSentences_areShort(t *testing.T) {
	for _, f := range (judge{cfg: testConfig(), batch: 1}).run(t, stormyLog(t, 5)) {
		require.LessOrEqual(t, len(strings.Fields(f.Explanation.Sentence)), 30, f.Explanation.Sentence)
		require.NotEmpty(t, f.Explanation.Sentence)
		require.NotEmpty(t, f.Explanation.Basis)
	}
}
