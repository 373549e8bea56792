// Package storetest runs a real engine for tests.
package storetest

import (
	"testing"

	"cordon/internal/store"
)

// Start returns a migrated store of its own database.
func Start(t testing.TB) *store.Store { t.Helper(); t.Fatal("not built yet"); return nil }

// Main runs the tests and then stops the engine: func TestMain(m *testing.M) { storetest.Main(m) }. Optional.
func Main(m *testing.M) {}
