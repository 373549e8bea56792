package fleet_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"cordon/internal/fleet"
)

func TestFences(t *testing.T) {
	f := fleet.NewFences()
	change := func(id string, active bool, level fleet.Level, state fleet.QuarantineState) {
		f.Apply(fleet.QuarantineChange{Device: "d1", ID: id, Active: active, Level: level, State: state})
	}
	void := func() bool {
		require.Equal(t, f.Void("fleet.telemetry.d1"), f.Void("fleet.audit.gw.d1"), "as a child too")
		require.Equal(t, f.Void("fleet.telemetry.d1"), f.Void("fleet.posture.d1.child"), "its children too")
		require.False(t, f.Void("fleet.telemetry.d2"))
		require.False(t, f.Void("fleet.control.quarantine.d1"))
		return f.Void("fleet.telemetry.d1")
	}
	require.False(t, void())
	change("d1.1", true, fleet.Isolate, fleet.Requested)
	require.False(t, void(), "requested is not confirmed")
	change("d1.1", true, fleet.Isolate, fleet.Confirmed)
	require.True(t, void())
	change("d1.2", true, fleet.Restrict, fleet.Requested)
	require.True(t, void(), "lowered to restrict, which may say nothing either")
	change("d1.2", false, fleet.Restrict, fleet.Released)
	require.False(t, void())
	change("d1.2", true, fleet.Restrict, fleet.Confirmed)
	require.False(t, void(), "a confirmation behind the end of its decision is void")
	change("d1.3", true, fleet.Isolate, fleet.Confirmed)
	require.True(t, void(), "the fence may come before the request")
	change("d1.3", true, fleet.Isolate, fleet.Requested)
	require.True(t, void())

	state, err := f.MarshalBinary()
	require.NoError(t, err)
	again := fleet.NewFences()
	require.NoError(t, again.UnmarshalBinary(state))
	require.Equal(t, f, again)
	for i := range state {
		require.Error(t, again.UnmarshalBinary(state[:i]))
	}

	change("d1.4", true, fleet.Observe, fleet.Requested)
	require.False(t, void(), "observe lets it speak")
	change("d1.4", true, fleet.Observe, fleet.Confirmed)
	require.False(t, void())
	change("d1.5", true, fleet.Isolate, fleet.Confirmed)
	change("d1.5", false, fleet.Isolate, fleet.Expired)
	require.False(t, void())
	require.Zero(t, f.Closed())
}
