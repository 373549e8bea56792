package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func message(n int) entry {
	return entry{kind: telemetryMessage, boot: "b1", seq: uint64(n), body: fmt.Appendf(nil, "message %d", n)}
}

func open(t testing.TB, dir string, limit int64) *diskQueue {
	t.Helper()
	q, err := openDiskQueue(dir, limit)
	require.NoError(t, err)
	return q
}

// drain reads what the cursor has not reached.
func drain(t testing.TB, q queue) []uint64 {
	t.Helper()
	var got []uint64
	for {
		e, _, ok, err := q.next()
		require.NoError(t, err)
		if !ok {
			return got
		}
		got = append(got, e.seq)
	}
}

func TestDiskQueue_keepsOrderOverRestart(t *testing.T) {
	dir := t.TempDir()
	q := open(t, dir, 1<<20)
	for n := 1; n <= 3000; n++ {
		require.NoError(t, q.push(t.Context(), message(n)))
	}
	for range 10 {
		_, generation, ok, err := q.next()
		require.NoError(t, err)
		require.True(t, ok)
		require.NoError(t, q.ack(generation))
	}
	require.NoError(t, q.close())

	q = open(t, dir, 1<<20)
	require.Equal(t, 2990, q.stats().messages)
	got := drain(t, q)
	require.Len(t, got, 2990)
	require.Equal(t, uint64(11), got[0])
	require.Equal(t, uint64(3000), got[len(got)-1])
}

func TestDiskQueue_killedWithoutClose(t *testing.T) {
	dir := t.TempDir()
	q := open(t, dir, 1<<20)
	for n := 1; n <= 5; n++ {
		require.NoError(t, q.push(t.Context(), message(n)))
	}
	_, generation, _, err := q.next()
	require.NoError(t, err)
	require.NoError(t, q.ack(generation))
	// No close: the process is gone, what it wrote is in the files.
	require.Equal(t, []uint64{2, 3, 4, 5}, drain(t, open(t, dir, 1<<20)))
}

func TestDiskQueue_tornAtEveryByte(t *testing.T) {
	dir := t.TempDir()
	q := open(t, dir, 1<<20)
	var ends []int64
	for n := 1; n <= 3; n++ {
		require.NoError(t, q.push(t.Context(), message(n)))
		ends = append(ends, q.stats().bytes)
	}
	raw, err := os.ReadFile(q.path(1))
	require.NoError(t, err)
	for size := range int64(len(raw)) + 1 {
		torn := filepath.Join(t.TempDir(), "buffer")
		require.NoError(t, os.MkdirAll(torn, 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(torn, filepath.Base(q.path(1))), raw[:size], 0o600))
		var want []uint64
		for i, end := range ends {
			if size >= end {
				want = append(want, uint64(i+1))
			}
		}
		again := open(t, torn, 1<<20)
		require.Equal(t, want, drain(t, again), "cut after %d bytes", size)
		require.NoError(t, again.push(t.Context(), message(9)))
		require.Equal(t, []uint64{9}, drain(t, again))
		require.NoError(t, again.close())
	}
}

func TestDiskQueue_damagedHeadOnlyRepeats(t *testing.T) {
	dir := t.TempDir()
	q := open(t, dir, 1<<20)
	require.NoError(t, q.push(t.Context(), message(1)))
	require.NoError(t, q.push(t.Context(), message(2)))
	_, generation, _, err := q.next()
	require.NoError(t, err)
	require.NoError(t, q.ack(generation))
	require.NoError(t, q.close())
	require.NoError(t, os.WriteFile(filepath.Join(dir, headFile), []byte("nonsense that is longer than a head file"), 0o600))
	require.Equal(t, []uint64{1, 2}, drain(t, open(t, dir, 1<<20)))
}

func TestDiskQueue_fullDropsOldestAndCounts(t *testing.T) {
	dir := t.TempDir()
	const limit = 8 << 10
	q := open(t, dir, limit)
	for n := 1; n <= 2000; n++ {
		require.NoError(t, q.push(t.Context(), message(n)))
		require.LessOrEqual(t, q.stats().bytes, int64(limit))
	}
	st := q.stats()
	require.Equal(t, 2000, st.messages+int(st.dropped))
	require.Positive(t, st.dropped)
	got := drain(t, q)
	require.Equal(t, uint64(2000), got[len(got)-1], "the newest stay")
	require.Equal(t, st.dropped+1, got[0])
	require.NoError(t, q.close())
	require.Equal(t, st.dropped, open(t, dir, limit).stats().dropped, "the count survives a restart")
}

func TestDiskQueue_ackOfDroppedRemovesNothing(t *testing.T) {
	q := open(t, t.TempDir(), 2<<10)
	require.NoError(t, q.push(t.Context(), message(1)))
	_, generation, _, err := q.next()
	require.NoError(t, err)
	for n := 2; q.stats().dropped == 0; n++ {
		require.NoError(t, q.push(t.Context(), message(n)))
	}
	before := q.stats()
	require.NoError(t, q.ack(generation))
	require.Equal(t, before, q.stats())
}

// TestQueue_property runs random pushes, reads, acknowledgements, rewinds and
// (on disk) restarts against a plain list: nothing is lost, repeated or
// reordered. rapid prints the failing sequence.
func TestQueue_property(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "q")
		require.NoError(rt, err)
		onDisk := rapid.Bool().Draw(rt, "disk")
		start := func() queue {
			if !onDisk {
				return newMemoryQueue(1<<20, true)
			}
			q, err := openDiskQueue(dir, 1<<20)
			require.NoError(rt, err)
			q.segmentBytes = 64
			return q
		}
		q := start()
		var held []uint64 // not acknowledged
		cursor, next := 0, uint64(0)
		rt.Repeat(map[string]func(*rapid.T){
			"push": func(rt *rapid.T) {
				next++
				require.NoError(rt, q.push(t.Context(), message(int(next))))
				held = append(held, next)
			},
			"next": func(rt *rapid.T) {
				e, _, ok, err := q.next()
				require.NoError(rt, err)
				require.Equal(rt, cursor < len(held), ok)
				if ok {
					require.Equal(rt, held[cursor], e.seq)
					cursor++
				}
			},
			"ack": func(rt *rapid.T) {
				if cursor == 0 {
					rt.Skip("nothing was read")
				}
				require.NoError(rt, q.ack(0))
				held, cursor = held[1:], cursor-1
			},
			"rewind": func(*rapid.T) {
				q.rewind()
				cursor = 0
			},
			"restart": func(rt *rapid.T) {
				if !onDisk {
					rt.Skip("memory does not survive")
				}
				if rapid.Bool().Draw(rt, "clean") {
					require.NoError(rt, q.close())
				}
				q, cursor = start(), 0
			},
			"": func(rt *rapid.T) { require.Equal(rt, len(held), q.stats().messages) },
		})
	})
}

func FuzzDecodeEntry(f *testing.F) {
	f.Add(message(1).encode())
	f.Add([]byte{3, 1, 0, 200})
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, err := decodeEntry(raw)
		if err != nil {
			return
		}
		again, err := decodeEntry(e.encode())
		require.NoError(t, err)
		require.Equal(t, e, again)
	})
}
