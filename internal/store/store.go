package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"cordon/internal/fleet"
)

// Options are what a Store needs besides its address.
type Options struct {
	// RawKey encrypts the raw bytes of dead letters at rest: 32 bytes, AES-256.
	// Keep it outside ClickHouse and give every role of one Cordon the same one.
	// Without a key the raw bytes are not stored at all (the rest of a dead
	// letter is), and Open logs a warning.
	RawKey []byte
	// Retention overrides how long tables keep rows; see Retention.
	Retention Retention
}

// Store is a connection to ClickHouse. Its methods may be called from many
// goroutines at once.
type Store struct {
	log       *slog.Logger
	opts      *clickhouse.Options
	conn      driver.Conn     // queries
	writers   chan *ch.Client // idle connections for inserts
	slots     chan struct{}   // one per connection for inserts
	seal      *sealer         // nil without a key
	retention Retention
	closed    chan struct{}
}

const (
	maxWriters   = 4  // connections for inserts at once
	maxReaders   = 16 // connections for queries at once
	dialTimeout  = 5 * time.Second
	readTimeout  = 60 * time.Second // between two packets: an insert may wait for merges
	queryTimeout = 30 * time.Second // of a query's execution on the server
	queryMemory  = 1 << 30
	scanTimeout  = 10 * time.Minute
	defaultDB    = "default"
	codeDenied   = 497 // ACCESS_DENIED
)

// Open connects to the ClickHouse at dsn (clickhouse://user:password@host:port/database,
// ?secure=true for TLS) and makes the database if there is none. It does not
// migrate. At most one Options is used.
func Open(ctx context.Context, dsn string, log *slog.Logger, options ...Options) (*Store, error) {
	var o Options
	if len(options) > 0 {
		o = options[0]
	}
	opts, err := clickhouse.ParseDSN(dsn)
	if err != nil {
		// The text of a URL error holds the password.
		return nil, fleet.Errorf(fleet.CodeInvalid, "the ClickHouse address is not of the form clickhouse://user:password@host:port/database").On("clickhouse")
	}
	if opts.Auth.Database == "" {
		opts.Auth.Database = "cordon"
	}
	opts.DialTimeout = dialTimeout
	opts.ReadTimeout = readTimeout
	opts.MaxOpenConns = maxReaders
	opts.MaxIdleConns = maxReaders / 2
	s := &Store{
		log: log, opts: opts, retention: o.Retention,
		writers: make(chan *ch.Client, maxWriters), slots: make(chan struct{}, maxWriters), closed: make(chan struct{}),
	}
	if s.seal, err = newSealer(o.RawKey); err != nil {
		return nil, err
	}
	if s.seal == nil {
		log.Warn("no key for dead letters: their raw bytes are not stored")
	}
	if s.conn, err = s.connect(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// connect makes the database if there is none and opens the query connections.
// It does not ask the server by connecting to a database that may not exist:
// a refused handshake ends the embedded engine (libchdb 26.7.3).
func (s *Store) connect(ctx context.Context) (driver.Conn, error) {
	if err := s.createDatabase(ctx); err != nil {
		return nil, fleet.Errorf(fleet.CodeUnavailable, "ClickHouse at %s does not answer as it should: %w", strings.Join(s.opts.Addr, ", "), err)
	}
	conn, err := clickhouse.Open(s.opts)
	if err != nil {
		return nil, fmt.Errorf("open ClickHouse: %w", err)
	}
	if err := conn.Ping(ctx); err != nil {
		_ = conn.Close()
		return nil, fleet.Errorf(fleet.CodeUnavailable, "ClickHouse at %s does not answer as it should: %w", strings.Join(s.opts.Addr, ", "), err)
	}
	return conn, nil
}

func (s *Store) createDatabase(ctx context.Context) error {
	opts := *s.opts
	opts.Auth.Database = defaultDB
	conn, err := clickhouse.Open(&opts)
	if err != nil {
		return fmt.Errorf("open ClickHouse: %w", err)
	}
	defer func() { _ = conn.Close() }()
	err = conn.Exec(ctx, "CREATE DATABASE IF NOT EXISTS "+quoteName(s.opts.Auth.Database))
	var exception *clickhouse.Exception
	if errors.As(err, &exception) && exception.Code == codeDenied {
		return nil // somebody else made it, or connecting to it will fail
	}
	if err != nil {
		return fmt.Errorf("create database %s: %w", s.opts.Auth.Database, err)
	}
	return nil
}

func quoteName(name string) string {
	return "`" + strings.NewReplacer("\\", "\\\\", "`", "\\`").Replace(name) + "`"
}

// Close closes every connection. Inserts under way fail.
func (s *Store) Close() error {
	select {
	case <-s.closed:
		return nil
	default:
		close(s.closed)
	}
	for {
		select {
		case w := <-s.writers:
			_ = w.Close()
			continue
		default:
		}
		break
	}
	if err := s.conn.Close(); err != nil {
		return fmt.Errorf("close ClickHouse: %w", err)
	}
	return nil
}

// Ping says whether ClickHouse answers.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.conn.Ping(ctx); err != nil {
		return fmt.Errorf("ping ClickHouse: %w", err)
	}
	return nil
}

// Database is the name of the database.
func (s *Store) Database() string { return s.opts.Auth.Database }

// dialWriter opens a connection for inserts.
func (s *Store) dialWriter(ctx context.Context) (*ch.Client, error) {
	var errs []error
	for _, addr := range s.opts.Addr {
		client, err := ch.Dial(ctx, ch.Options{
			Address: addr, Database: s.opts.Auth.Database, User: s.opts.Auth.Username, Password: s.opts.Auth.Password,
			ClientName: "cordon", DialTimeout: dialTimeout, ReadTimeout: readTimeout, HandshakeTimeout: readTimeout,
			TLS: s.opts.TLS, Compression: compressionFor(addr),
		})
		if err == nil {
			return client, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("connect to ClickHouse: %w", errors.Join(errs...))
}

// compressionFor spares the processor on loopback and the wire elsewhere.
func compressionFor(addr string) ch.Compression {
	host, _, err := net.SplitHostPort(addr)
	if err == nil && (host == "localhost" || net.ParseIP(host).IsLoopback()) {
		return ch.CompressionDisabled
	}
	return ch.CompressionLZ4
}
