package bus

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
)

// Bus is Cordon's connection to the broker: one client in each account.
type Bus struct {
	System  *nats.Conn // kicks and connection lists
	Auth    *nats.Conn // callout requests
	Devices *nats.Conn // the FLEET stream, receipts, commands
	Cordon  *nats.Conn // findings, incidents, buckets

	Fleet jetstream.JetStream // JetStream of DEVICES
	Core  jetstream.JetStream // JetStream of CORDON

	secret [sha256.Size]byte // of MsgID
}

// Connect connects to every account. options say where the broker is:
// Server.Option() for the embedded one, or TLS options for an external one
// at url.
func Connect(url string, keys Keys, log *slog.Logger, options ...nats.Option) (*Bus, error) {
	b := &Bus{secret: sha256.Sum256([]byte("message ids " + keys.Issuer))}
	for _, part := range []struct {
		conn **nats.Conn
		name string
		seed string
	}{
		{&b.System, "system", keys.System},
		{&b.Auth, "auth", keys.Auth},
		{&b.Devices, "devices", keys.Devices},
		{&b.Cordon, "cordon", keys.Cordon},
	} {
		conn, err := connect(url, part.name, part.seed, log, options)
		if err != nil {
			b.Close()
			return nil, err
		}
		*part.conn = conn
	}
	var err error
	if b.Fleet, err = jetstream.New(b.Devices, jetstream.WithPublishAsyncMaxPending(4096)); err == nil {
		b.Core, err = jetstream.New(b.Cordon, jetstream.WithPublishAsyncMaxPending(4096))
	}
	if err != nil {
		b.Close()
		return nil, fmt.Errorf("open jetstream: %w", err)
	}
	return b, nil
}

func connect(url, name, seed string, log *slog.Logger, options []nats.Option) (*nats.Conn, error) {
	pair, err := nkeys.FromSeed([]byte(seed))
	if err != nil {
		return nil, fmt.Errorf("read broker key of %s: %w", name, err)
	}
	pub, err := pair.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("read broker key of %s: %w", name, err)
	}
	all := append([]nats.Option{
		nats.Name("cordon " + name),
		nats.Nkey(pub, pair.Sign),
		nats.MaxReconnects(-1),
		nats.IgnoreAuthErrorAbort(),
		nats.ReconnectWait(200 * time.Millisecond),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			if sub != nil {
				log.Warn("broker client error", "client", name, "subject", sub.Subject, "error", err)
				return
			}
			log.Warn("broker client error", "client", name, "error", err)
		}),
	}, options...)
	conn, err := nats.Connect(url, all...)
	if err != nil {
		return nil, fmt.Errorf("connect to broker as %s: %w", name, err)
	}
	return conn, nil
}

// Close closes every connection.
func (b *Bus) Close() {
	for _, conn := range []*nats.Conn{b.System, b.Auth, b.Devices, b.Cordon} {
		if conn != nil {
			conn.Close()
		}
	}
}

// Provision creates or updates every stream and bucket. It may be called by
// every role at every start.
func (b *Bus) Provision(ctx context.Context, limits Limits) error {
	type entry struct {
		js  jetstream.JetStream
		cfg jetstream.StreamConfig
	}
	for _, e := range []entry{
		{b.Fleet, jetstream.StreamConfig{
			Name: StreamFleet, Subjects: FleetSubjects, Description: "all that devices send, in one order",
			MaxBytes: limits.FleetBytes, MaxMsgSize: limits.MaxPayload, Duplicates: 2 * time.Minute,
		}},
		{b.Core, jetstream.StreamConfig{
			Name: StreamFindings, Subjects: []string{SubjectFinding + ".>"},
			MaxBytes: limits.FindingBytes, MaxAge: limits.FindingAge, Duplicates: 2 * time.Minute,
		}},
		{b.Core, jetstream.StreamConfig{
			Name: StreamIncidents, Subjects: []string{SubjectIncident + ".>"},
			MaxBytes: limits.FindingBytes, MaxAge: limits.FindingAge, Duplicates: 2 * time.Minute,
		}},
		{b.Core, jetstream.StreamConfig{
			Name: StreamDeliveries, Subjects: []string{SubjectDelivery + ".>"},
			MaxBytes: limits.FindingBytes, Retention: jetstream.WorkQueuePolicy, Duplicates: 2 * time.Minute,
		}},
		{b.Core, jetstream.StreamConfig{
			Name: StreamOperatorLog, Subjects: []string{SubjectOperatorLog},
			MaxBytes: limits.FindingBytes, DenyDelete: true, DenyPurge: true, Duplicates: 2 * time.Minute,
		}},
	} {
		e.cfg.Discard = jetstream.DiscardNew
		e.cfg.Storage, e.cfg.Replicas = jetstream.FileStorage, limits.Replicas
		if _, err := e.js.CreateOrUpdateStream(ctx, e.cfg); err != nil {
			return fmt.Errorf("create stream %s: %w", e.cfg.Name, err)
		}
	}
	for _, name := range Buckets {
		if err := b.provisionBucket(ctx, name, limits); err != nil {
			return err
		}
	}
	if _, err := b.Core.CreateOrUpdateObjectStore(ctx, jetstream.ObjectStoreConfig{Bucket: ObjectsCheckpoint, Storage: jetstream.FileStorage, Replicas: limits.Replicas}); err != nil {
		return fmt.Errorf("create object store %s: %w", ObjectsCheckpoint, err)
	}
	return nil
}

// provisionBucket creates a bucket and turns direct gets off: a follower may
// answer them with a stale value, and the gate must never admit on one.
func (b *Bus) provisionBucket(ctx context.Context, name string, limits Limits) error {
	stream, err := b.Core.Stream(ctx, "KV_"+name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		_, err = b.Core.CreateKeyValue(ctx, jetstream.KeyValueConfig{
			Bucket: name, History: limits.HistoryPerKey, Storage: jetstream.FileStorage, LimitMarkerTTL: time.Hour, Replicas: limits.Replicas,
		})
		if err == nil {
			stream, err = b.Core.Stream(ctx, "KV_"+name)
		}
	}
	if err != nil {
		return fmt.Errorf("create bucket %s: %w", name, err)
	}
	cfg := stream.CachedInfo().Config
	if !cfg.AllowDirect {
		return nil
	}
	cfg.AllowDirect = false
	if _, err := b.Core.UpdateStream(ctx, cfg); err != nil {
		return fmt.Errorf("turn direct gets of bucket %s off: %w", name, err)
	}
	return nil
}

// Bucket opens a bucket that Provision made.
func (b *Bus) Bucket(ctx context.Context, name string) (jetstream.KeyValue, error) {
	kv, err := b.Core.KeyValue(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", name, err)
	}
	return kv, nil
}
