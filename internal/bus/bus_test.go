package bus_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"cordon/internal/bus"
	"cordon/internal/bus/bustest"
)

func TestBus_bucketsRefuseDirectGets(t *testing.T) {
	b := bustest.Start(t)
	for _, name := range bus.Buckets {
		stream, err := b.Core.Stream(t.Context(), "KV_"+name)
		require.NoError(t, err)
		require.False(t, stream.CachedInfo().Config.AllowDirect, name)
	}
	require.NoError(t, b.Provision(t.Context(), bustest.Limits()), "provisioning is idempotent")
}

func TestBus_fleetIsInvisibleFromCordon(t *testing.T) {
	b := bustest.Start(t)
	_, err := b.Fleet.Publish(t.Context(), "fleet.telemetry.d1", []byte("{}"))
	require.NoError(t, err)
	_, err = b.Core.Stream(t.Context(), bus.StreamFleet)
	require.Error(t, err)
}

func TestDevice(t *testing.T) {
	require.Equal(t, "d1", bus.Device("fleet.telemetry.d1"))
	require.Equal(t, "gw", bus.Device("fleet.telemetry.gw.child"))
	require.Empty(t, bus.Device("fleet.tick"))
	require.Empty(t, bus.Device("other.telemetry.d1"))
}
