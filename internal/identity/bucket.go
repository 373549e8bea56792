package identity

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"cordon/internal/fleet"
)

// readJSON reads an entry of a bucket. Code: not_found.
func readJSON[T any](ctx context.Context, r *Registry, bucket, key string) (T, error) {
	value, _, err := readEntry[T](ctx, r, bucket, key)
	return value, err
}

func readEntry[T any](ctx context.Context, r *Registry, bucket, key string) (T, uint64, error) {
	var value T
	kv, err := r.deps.Bus.Bucket(ctx, bucket)
	if err != nil {
		return value, 0, err
	}
	entry, err := kv.Get(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return value, 0, fleet.Errorf(fleet.CodeNotFound, "there is no %s %s", bucket, key)
	}
	if err != nil {
		return value, 0, fmt.Errorf("read %s %s: %w", bucket, key, err)
	}
	if err := json.Unmarshal(entry.Value(), &value); err != nil {
		return value, 0, fmt.Errorf("decode %s %s: %w", bucket, key, err)
	}
	return value, entry.Revision(), nil
}

func writeJSON(ctx context.Context, r *Registry, bucket, key string, value any) error {
	kv, err := r.deps.Bus.Bucket(ctx, bucket)
	if err != nil {
		return err
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode %s %s: %w", bucket, key, err)
	}
	if _, err := kv.Put(ctx, key, raw); err != nil {
		return fmt.Errorf("write %s %s: %w", bucket, key, err)
	}
	return nil
}

// changeJSON changes an entry by compare-and-set. Codes: not_found, conflict.
func changeJSON[T any](ctx context.Context, r *Registry, bucket, key string, change func(*T) error) (T, error) {
	kv, err := r.deps.Bus.Bucket(ctx, bucket)
	if err != nil {
		var none T
		return none, err
	}
	for range casAttempts {
		value, revision, err := readEntry[T](ctx, r, bucket, key)
		if err != nil {
			return value, err
		}
		if err := change(&value); err != nil {
			return value, err
		}
		raw, err := json.Marshal(value)
		if err != nil {
			return value, fmt.Errorf("encode %s %s: %w", bucket, key, err)
		}
		_, err = kv.Update(ctx, key, raw, revision)
		if errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
			continue
		}
		if err != nil {
			return value, fmt.Errorf("write %s %s: %w", bucket, key, err)
		}
		return value, nil
	}
	var none T
	return none, fleet.Errorf(fleet.CodeConflict, "it is being changed by others: try again")
}

// listJSON reads the entries whose keys a pattern such as maker.* matches.
func listJSON[T any](ctx context.Context, r *Registry, bucket, pattern string) ([]T, error) {
	kv, err := r.deps.Bus.Bucket(ctx, bucket)
	if err != nil {
		return nil, err
	}
	watcher, err := kv.Watch(ctx, pattern, jetstream.IgnoreDeletes())
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", bucket, err)
	}
	defer watcher.Stop() //nolint:errcheck // nothing can be done about it
	list := []T{}
	// The client misses an end of ctx that comes while it subscribes.
	defer context.AfterFunc(ctx, func() { _ = watcher.Stop() })()
	for entry := range watcher.Updates() {
		if entry == nil {
			return list, nil
		}
		var value T
		if err := json.Unmarshal(entry.Value(), &value); err != nil {
			r.deps.Log.Error("entry can't be read, leaving it", "bucket", bucket, "key", entry.Key(), "error", err)
			continue
		}
		list = append(list, value)
	}
	return nil, fleet.Errorf(fleet.CodeUnavailable, "list %s: the broker ended the watch", bucket)
}

func random(n int) ([]byte, error) {
	raw := make([]byte, n, n+fleet.MaxDeviceID)
	if _, err := rand.Read(raw); err != nil {
		return nil, fmt.Errorf("draw random bytes: %w", err)
	}
	return raw, nil
}
