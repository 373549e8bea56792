package engine

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/internal/fleet"
)

// An erased device is not in the state that is checkpointed, nor is its name.
func TestEngine_forgetsErasedDevice(t *testing.T) {
	e := New(DefaultConfig())
	at := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	for i, id := range []string{"secret-pump", "other"} {
		e.Apply(fleet.Record{
			Kind: fleet.TelemetryKind, StreamSeq: uint64(i + 1), ReceivedAt: at, Device: id,
			Readings: []fleet.Reading{{ObservedAt: at, Metric: "cpu", Value: 1}},
		})
	}
	require.True(t, bytes.Contains(e.Snapshot(), []byte("secret-pump")))
	e.Apply(fleet.Record{Kind: fleet.ControlKind, StreamSeq: 3, ReceivedAt: at, Control: fleet.Control{Device: &fleet.DeviceChange{ID: "secret-pump", Retired: true, Erased: true}}})
	require.False(t, bytes.Contains(e.Snapshot(), []byte("secret-pump")))
	require.True(t, bytes.Contains(e.Snapshot(), []byte("other")))
	devices, _ := e.Size()
	require.Equal(t, 1, devices)
}
