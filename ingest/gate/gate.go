package gate

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
	"github.com/prometheus/client_golang/prometheus"

	"cordon/internal/bus"
	"cordon/internal/fleet"
	"cordon/internal/identity"
)

// Config holds the gate's times and limits.
type Config struct {
	PermissionLife time.Duration            // of a user JWT; the certificate's end may come earlier
	Concurrency    int                      // authorization requests handled at once
	ConfirmWithin  time.Duration            // a quarantine not confirmed by then is failed, and retried
	Settle         time.Duration            // between the two looks at the brokers that confirm a quarantine
	Reconcile      time.Duration            // how often every connection is checked against registry and quarantines
	TickEvery      time.Duration            // distance of ticks on the FLEET log
	Fault          func(point string) error // for tests: an error breaks off at the point

	BrokerMemory  time.Duration // a broker that answered within this time must answer for a quarantine to be confirmed
	PerDevice     int           // connections of one device side by side, with ClonesAllow
	PerAddress    int           // connections from one address; 0: any number
	Clones        Clones        // one identity on two live connections
	Failures      int           // refusals of one device from one address within FailureWindow; then it is refused unasked
	FailureWindow time.Duration //
	FloodEvery    time.Duration // how often the brokers' counters are looked at, if more often than Reconcile
	FloodMessages float64       // per second that one connection may send …
	FloodBytes    float64       // … and bytes
	CoolDown      time.Duration // how long a device that flooded is refused
}

// DefaultConfig suits a fleet of 100,000 devices on one node.
func DefaultConfig() Config {
	return Config{
		PermissionLife: time.Hour,
		Concurrency:    64,
		ConfirmWithin:  5 * time.Second,
		Settle:         3 * time.Millisecond,
		Reconcile:      30 * time.Second,
		TickEvery:      10 * time.Second,
		PerDevice:      4, PerAddress: 0, Clones: ClonesNewest, BrokerMemory: time.Hour, Failures: 20, FailureWindow: time.Minute,
		FloodEvery: 30 * time.Second, FloodMessages: 5_000, FloodBytes: 32 << 20, CoolDown: time.Minute,
	}
}

// Deps are what the gate needs.
type Deps struct {
	Bus  *bus.Bus
	Keys bus.Keys
	// Device reads a device from the registry's leader, never from a cache.
	// Code: not_found.
	Device func(ctx context.Context, id string) (fleet.Device, error)
	// Registry knows whose certificates and token credentials are whose.
	Registry *identity.Registry
	// Command makes the signed message that tells a device about a decision:
	// that it is in force, or has ended. Nil: devices are not told.
	Command func(q fleet.Quarantine) ([]byte, error)
	Clock   func() time.Time
	Log     *slog.Logger
	Metrics prometheus.Registerer // may be nil
}

// Gate answers the broker's authorization requests and enforces quarantines.
type Gate struct {
	cfg     Config
	deps    Deps
	metrics *metrics
	table   *table
	quiet   *quiet
	limits  *limiter
	peers   *peers
	ready   chan struct{}

	issuer, curve nkeys.KeyPair
	quarantines   jetstream.KeyValue
	enforcer      *enforcer
	devices       *devices

	healthy atomic.Bool // nothing went wrong since the last tick
	active  atomic.Int64
	failed  atomic.Int64
}

// New makes an inert gate.
func New(cfg Config, deps Deps) *Gate {
	if deps.Metrics == nil {
		deps.Metrics = prometheus.NewRegistry()
	}
	g := &Gate{cfg: cfg, deps: deps, table: newTable(), quiet: newQuiet(deps.Clock), ready: make(chan struct{})}
	g.limits, g.peers = newLimiter(g), &peers{g: g, seen: map[string]time.Time{}}
	g.metrics = newMetrics(deps.Metrics, g)
	return g
}

// Ready is closed once the gate answers and every quarantine and device state
// is known.
func (g *Gate) Ready() <-chan struct{} { return g.ready }

// Run answers and enforces until ctx ends. Connected devices stay connected
// when it returns; new ones are refused by the broker until a gate runs.
func (g *Gate) Run(ctx context.Context) error {
	if err := g.run(ctx); ctx.Err() == nil {
		return err
	}
	return nil // whatever the end of the context broke off
}

func (g *Gate) run(ctx context.Context) error {
	if err := g.open(ctx); err != nil {
		return err
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var group sync.WaitGroup
	defer group.Wait()
	defer stop(nil)

	subs, err := g.subscribe(ctx, &group)
	defer unsubscribe(subs)
	if err != nil {
		return err
	}
	loops := []func(context.Context) error{
		g.enforcer.run, g.enforcer.keepTime, g.enforcer.journal.Run, g.devices.run, g.reconcileLoop, g.tickLoop,
	}
	for _, loop := range loops {
		group.Go(func() {
			if err := loop(ctx); err != nil && ctx.Err() == nil {
				stop(err)
			}
		})
	}
	for _, part := range []<-chan struct{}{g.enforcer.loaded, g.devices.loaded} {
		select {
		case <-part:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	close(g.ready)
	<-ctx.Done()
	return context.Cause(ctx)
}

func (g *Gate) open(ctx context.Context) (err error) {
	if g.issuer, err = nkeys.FromSeed([]byte(g.deps.Keys.Issuer)); err != nil {
		return fmt.Errorf("read issuer key: %w", err)
	}
	if g.curve, err = nkeys.FromCurveSeed([]byte(g.deps.Keys.Curve)); err != nil {
		return fmt.Errorf("read curve key: %w", err)
	}
	if g.quarantines, err = g.deps.Bus.Bucket(ctx, bus.BucketQuarantine); err != nil {
		return err
	}
	if err := g.peers.load(ctx); err != nil {
		return err
	}
	g.enforcer = newEnforcer(g)
	g.devices = newDevices(g)
	return nil
}

func (g *Gate) subscribe(ctx context.Context, group *sync.WaitGroup) ([]*nats.Subscription, error) {
	flush, cancel := context.WithTimeout(ctx, readWait)
	defer cancel()
	var subs []*nats.Subscription
	slots := make(chan struct{}, g.cfg.Concurrency)
	for _, s := range []struct {
		conn           *nats.Conn
		subject, queue string
		handle         nats.MsgHandler
	}{
		{g.deps.Bus.System, disconnectSubject, "", g.onDisconnect},
		{g.deps.Bus.System, disconnectSubject, "gate", g.announceDisconnect},
		{g.deps.Bus.System, connectSubject, "gate", g.announceConnect},
		{g.deps.Bus.Auth, calloutSubject, "gate", func(msg *nats.Msg) {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			group.Go(func() {
				defer func() { <-slots }()
				g.answer(ctx, msg)
			})
		}},
	} {
		var sub *nats.Subscription
		var err error
		if s.queue == "" {
			sub, err = s.conn.Subscribe(s.subject, s.handle)
		} else {
			sub, err = s.conn.QueueSubscribe(s.subject, s.queue, s.handle)
		}
		if err != nil {
			return subs, fmt.Errorf("subscribe %s: %w", s.subject, err)
		}
		subs = append(subs, sub)
		if err := sub.SetPendingLimits(1<<18, 512<<20); err != nil {
			return subs, fmt.Errorf("subscribe %s: %w", s.subject, err)
		}
		if err := s.conn.FlushWithContext(flush); err != nil {
			return subs, fmt.Errorf("subscribe %s: %w", s.subject, err)
		}
	}
	return subs, nil
}

func unsubscribe(subs []*nats.Subscription) {
	for _, sub := range subs {
		sub.Unsubscribe() //nolint:errcheck // the connection is gone then
	}
}

// Status says how the gate stands.
func (g *Gate) Status() fleet.StageStatus {
	select {
	case <-g.ready:
	default:
		return fleet.StageStatus{Stage: "gate", Detail: "The gate is starting; devices can't connect yet."}
	}
	connections, failed := g.table.len(), g.failed.Load()
	status := fleet.StageStatus{
		Stage: "gate", Healthy: failed == 0,
		Detail: fmt.Sprintf("%d connections, %d quarantines in force.", connections, g.active.Load()),
		Counters: map[string]float64{
			"connections": float64(connections), "quarantines": float64(g.active.Load()), "quarantines_failed": float64(failed),
			"refused": g.metrics.refusedTotal(), "admitted": g.metrics.admittedTotal(), "kicked": g.metrics.kickedTotal(),
		},
	}
	if failed > 0 {
		status.Detail = fmt.Sprintf("%d quarantines are not confirmed: a broker does not answer or a connection can't be cut; see the device's page.", failed)
	}
	return status
}
