package store

import (
	"context"
	"io/fs"
)

// CountForTest runs a query that returns one UInt64.
func CountForTest(s *Store, ctx context.Context, query string) (uint64, error) {
	return s.count(ctx, "test", query, nil)
}

// MigrateForTest runs other migrations than the embedded ones.
func MigrateForTest(s *Store, ctx context.Context, files fs.FS) error { return s.migrate(ctx, files) }

// ExecForTest runs a statement.
func ExecForTest(s *Store, ctx context.Context, query string) error { return s.conn.Exec(ctx, query) }
