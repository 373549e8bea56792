package evidence

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"cordon/internal/bus"
	"cordon/internal/bus/bustest"
	"cordon/internal/fleet"
)

func start(t *testing.T) (*Service, *bus.Bus) {
	b := bustest.Start(t)
	key, err := LoadKey(t.TempDir())
	require.NoError(t, err)
	at := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	s := New(Deps{Bus: b, Key: key, Sources: Sources{
		Incident: func(_ context.Context, id string) (fleet.Incident, error) {
			if id == "INC-9" {
				return fleet.Incident{}, fleet.Errorf(fleet.CodeNotFound, "there is none")
			}
			return fleet.Incident{ID: id, Device: "pump-1", Severity: fleet.High, FindingIDs: []string{"f1"}, Rules: []string{"cpu"}, FirstAt: at, LastAt: at}, nil
		},
		Findings: func(context.Context, []string) ([]fleet.Finding, error) {
			return []fleet.Finding{{ID: "f1", Device: "pump-1"}}, nil
		},
		Readings: func(context.Context, string, time.Time, time.Time) (any, error) { return []int{1, 2, 3}, nil },
		Audit: func(context.Context, string, time.Time, time.Time) (any, error) {
			return nil, errors.New("clickhouse is away")
		},
		Rules: func() []fleet.Rule { return []fleet.Rule{{ID: "cpu", Version: "v1"}, {ID: "other"}} },
	}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	require.NoError(t, s.open(ctx))
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() { cancel(); require.NoError(t, <-done) })
	return s, b
}

func TestAGraveIncidentIsSealedOnceAndTheArchiveVerifiesOffline(t *testing.T) {
	s, b := start(t)
	raw, err := json.Marshal(fleet.IncidentChange{ID: "INC-1.1", Change: "opened", Incident: fleet.Incident{ID: "INC-1", Severity: fleet.Critical}})
	require.NoError(t, err)
	for range 2 {
		_, err = b.Core.Publish(t.Context(), bus.SubjectIncident+".INC-1", raw)
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool {
		c, err := b.Core.Consumer(t.Context(), bus.StreamIncidents, consumerName)
		return err == nil && c.CachedInfo().AckFloor.Stream == 2
	}, 20*time.Second, 10*time.Millisecond)

	name, archive, err := s.Archive(t.Context(), "INC-1", "ann", false)
	require.NoError(t, err)
	require.Equal(t, "INC-1.1.zip", name)
	report, err := Verify(archive, s.deps.Key.Public().(ed25519.PublicKey))
	require.NoError(t, err)
	require.Empty(t, report.Faults)
	require.Equal(t, uint64(1), report.Manifest.Number, "sealed once")
	require.Equal(t, []string{"devices/pump-1/audit.json: can't be read now"}, report.Manifest.Missing)

	_, second, err := s.Archive(t.Context(), "INC-1", "ann", true)
	require.NoError(t, err)
	next, err := Verify(second, nil)
	require.NoError(t, err)
	require.Equal(t, report.Hash, next.Manifest.Previous, "a chain")
	_, _, err = s.Archive(t.Context(), "INC-9", "ann", false)
	require.Equal(t, fleet.CodeNotFound, fleet.CodeOf(err))

	removed, err := s.Forget(t.Context(), "pump-1")
	require.NoError(t, err)
	require.Equal(t, 2, removed)
}

// rewrite copies an archive with one member changed, or left out when nil.
func rewrite(t *testing.T, archive []byte, name string, content []byte) []byte {
	t.Helper()
	r, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	require.NoError(t, err)
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for _, f := range r.File {
		in, err := f.Open()
		require.NoError(t, err)
		raw, err := io.ReadAll(in)
		require.NoError(t, err)
		if f.Name == name {
			if content == nil {
				continue
			}
			raw = content
		}
		to, err := w.Create(f.Name)
		require.NoError(t, err)
		_, err = to.Write(raw)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return out.Bytes()
}

func TestATamperedArchiveIsRefusedAndTheMemberNamed(t *testing.T) {
	s, _ := start(t)
	_, archive, err := s.Archive(t.Context(), "INC-1", "ann", false)
	require.NoError(t, err)
	for name, content := range map[string][]byte{
		"findings.json": []byte("[]"), "devices/pump-1/readings.json": nil, ManifestName: []byte(`{"version":1}`), SignatureName: []byte("AAAA"),
	} {
		report, err := Verify(rewrite(t, archive, name, content), nil)
		require.NoError(t, err)
		require.NotEmpty(t, report.Faults, name)
		if name != ManifestName && name != SignatureName {
			require.Len(t, report.Faults, 1)
			require.Contains(t, report.Faults[0], name)
		}
	}
	other, err := LoadKey(t.TempDir())
	require.NoError(t, err)
	report, err := Verify(archive, other.Public().(ed25519.PublicKey))
	require.NoError(t, err)
	require.Contains(t, report.Faults[0], "another key")
	_, err = Verify([]byte("no zip"), nil)
	require.Error(t, err)
}
