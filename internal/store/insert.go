package store

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"
)

var (
	// ErrBlock is the cause of permanent errors that a block's own content
	// makes before it reaches ClickHouse.
	ErrBlock  = errors.New("block can't be stored")
	errClosed = errors.New("store is closed")
)

// dataFaults are the ClickHouse errors that the rows themselves cause, so that
// repeating the insert cannot help. Every other error may go away: rather wait
// than give up rows for a fault that is not theirs.
var dataFaults = map[proto.Error]bool{
	proto.ErrCannotParseText:                  true,
	proto.ErrIncorrectData:                    true,
	proto.ErrTypeMismatch:                     true,
	proto.ErrCannotConvertType:                true,
	proto.ErrArgumentOutOfBound:               true,
	proto.ErrTooLargeStringSize:               true,
	proto.ErrTooManyRows:                      true,
	proto.ErrTooManyBytes:                     true,
	proto.ErrCannotReadAllData:                true,
	proto.ErrSizesOfColumnsDoesntMatch:        true,
	proto.ErrCannotInsertNullInOrdinaryColumn: true,
	proto.ErrTooLargeArraySize:                true,
	proto.ErrValueIsOutOfRangeOfDataType:      true,
	proto.ErrDecimalOverflow:                  true,
	proto.ErrViolatedConstraint:               true,
	proto.ErrIllegalColumn:                    true,
}

// Permanent says whether repeating an insert that failed with err can't help
// because the rows themselves are at fault: bisect the block down to the
// message that ClickHouse refuses. False for everything else (connection,
// time, memory, disk, merges behind, a schema that does not fit): repeat the
// same rows with the same token.
func Permanent(err error) bool {
	if errors.Is(err, ErrBlock) {
		return true
	}
	exception, ok := ch.AsException(err)
	if !ok {
		return false
	}
	if exception.IsCode(proto.ErrTooManyParts) {
		// Two errors have this code: merges are behind (wait), and one block
		// over too many partitions (make it smaller).
		return strings.Contains(exception.Message, "single INSERT block")
	}
	return dataFaults[exception.Code]
}

// InsertAudit stores a block of audit events; see InsertTelemetry. Texts keep
// every byte, also what is not UTF-8.
func (s *Store) InsertAudit(ctx context.Context, token string, b *AuditBlock) error {
	if b.Len() == 0 {
		return nil
	}
	t := newTable([]column{
		{"device", word},
		{"received_at", instant},
		{"stream_seq", number},
		{"n", number32},
		{"observed_at", instant},
		{"boot", word},
		{"seq", number},
		{"class", word},
		{"activity", word},
		{"outcome", word},
		{"program", word},
		{"actor", text},
		{"user", text},
		{"message", text},
		{"fields", words},
		{"repeat", signed},
	})
	for i := range b.Rows {
		r := &b.Rows[i]
		t.add(
			r.Device, r.ReceivedAt, r.StreamSeq, r.N, r.ObservedAt,
			r.Boot, r.Seq, r.Class, r.Activity, r.Outcome, r.Program,
			r.Actor, r.User, r.Message, r.Fields, int64(r.Repeat),
		)
	}
	return s.insert(ctx, "audit", token, t.input())
}

// InsertDeadLetters stores a block of dead letters, their raw bytes encrypted;
// see InsertTelemetry.
func (s *Store) InsertDeadLetters(ctx context.Context, token string, b *DeadLetterBlock) error {
	if b.Len() == 0 {
		return nil
	}
	t := newTable([]column{
		{"device", word},
		{"received_at", instant},
		{"stream_seq", number},
		{"subject", text},
		{"reason", word},
		{"detail", text},
		{"raw", text},
	})
	for i := range b.Rows {
		r := &b.Rows[i]
		raw, err := s.seal.seal(r.Raw, r.StreamSeq, r.Device)
		if err != nil {
			return fmt.Errorf("insert dead letters: %w", err)
		}
		t.add(r.Device, r.ReceivedAt, r.StreamSeq, r.Subject, r.Reason, r.Detail, raw)
	}
	return s.insert(ctx, "dead_letters", token, t.input())
}

// insert sends one block.
func (s *Store) insert(ctx context.Context, table, token string, input proto.Input) error {
	client, err := s.writer(ctx)
	if err != nil {
		return fmt.Errorf("insert into %s: %w", table, err)
	}
	defer s.release(client)
	settings := []ch.Setting{
		{Key: "async_insert", Value: "0", Important: true},
		{Key: "insert_deduplicate", Value: "1", Important: true},
		{Key: "deduplicate_blocks_in_dependent_materialized_views", Value: "1", Important: true},
		{Key: "max_execution_time", Value: "120"},
	}
	if token != "" {
		settings = append(settings, ch.Setting{Key: "insert_deduplication_token", Value: token, Important: true})
	}
	if err := client.Do(ctx, ch.Query{Body: input.Into(table), Input: input, Settings: settings}); err != nil {
		_ = client.Close() // its protocol state is unknown
		return fmt.Errorf("insert into %s: %w", table, err)
	}
	return nil
}

// writer takes an idle connection for inserts or opens one.
func (s *Store) writer(ctx context.Context) (*ch.Client, error) {
	select {
	case <-s.closed:
		return nil, errClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	case s.slots <- struct{}{}:
	}
	for {
		select {
		case client := <-s.writers:
			if client.IsClosed() || client.Ping(ctx) != nil {
				_ = client.Close() // the server went away meanwhile
				continue
			}
			return client, nil
		default:
		}
		client, err := s.dialWriter(ctx)
		if err != nil {
			<-s.slots
			return nil, err
		}
		return client, nil
	}
}

func (s *Store) release(client *ch.Client) {
	defer func() { <-s.slots }()
	select {
	case <-s.closed:
		_ = client.Close()
		return
	default:
	}
	if client.IsClosed() {
		return
	}
	s.writers <- client // has room for every slot
}
