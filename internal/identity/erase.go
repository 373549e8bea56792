package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

// Erasure is an entry of the erasure ledger (bucket "erasure", by device).
type Erasure struct {
	Device      string    `json:"device"`
	State       string    `json:"state" doc:"running or done."`
	Reason      string    `json:"reason"`
	RequestedBy string    `json:"requested_by"`
	RequestedAt time.Time `json:"requested_at"`
	CompletedAt time.Time `json:"completed_at,omitzero"`
	Failure     string    `json:"failure,omitempty"`
	Replays     int       `json:"replays,omitempty" doc:"How often data of it came back, as from a backup, and was erased again."`
	Receipt     *Receipt  `json:"receipt,omitempty"`
}

// The states of an erasure.
const (
	ErasureRunning = "running"
	ErasureDone    = "done"
)

// Statement is what a receipt says.
type Statement struct {
	Device      string    `json:"device"`
	Reason      string    `json:"reason"`
	RequestedBy string    `json:"requested_by"`
	RequestedAt time.Time `json:"requested_at"`
	VerifiedAt  time.Time `json:"verified_at"`
	Places      []Place   `json:"places"`
	Kept        []string  `json:"kept"`
}

// Place is somewhere that data of the device were.
type Place struct {
	Place   string `json:"place"`   // clickhouse telemetry, stream FLEET, bucket device, detector
	Deleted uint64 `json:"deleted"` // rows, messages, revisions
	Left    uint64 `json:"left"`    // counted by query afterwards
}

// kept is what an erasure leaves, and says so.
var kept = []string{
	"this entry of the erasure ledger, and the device's id in the registry as retired, so that the id is not used again",
	"the operator log, which says who did what to the device",
	"incidents about several devices, which name it among others",
	"counts that name no device (messages per ten seconds)",
	"hashes of keys and hardware ids that are barred because the device was quarantined or revoked",
}

// Wiper deletes a device's rows (store.Store).
type Wiper interface {
	DeviceRows(ctx context.Context, device string) (map[string]uint64, error)
	EraseDevice(ctx context.Context, device string) error
}

// EraserDeps are what the eraser needs.
type EraserDeps struct {
	Registry *Registry
	Wiper    Wiper
	// Baselines says what the detector knows of a device; nil: not asked.
	Baselines func(ctx context.Context, device string) ([]fleet.BaselineState, error)
	Log       *slog.Logger
}

// Eraser deletes all data of a device, in every store, and proves it.
type Eraser struct {
	deps EraserDeps
	r    *Registry
}

const (
	settleWait  = 20 * time.Second // for consumers to pass the device's last message
	settlePoll  = 50 * time.Millisecond
	settleCalm  = 6 // polls in a row: a mover notes its position before it stores
	replayRetry = time.Minute
	eraseWithin = 5 * time.Minute
	wipeTries   = 5
)

// NewEraser makes an eraser; Run replays the ledger.
func NewEraser(deps EraserDeps) *Eraser { return &Eraser{deps: deps, r: deps.Registry} }

// Run replays the ledger at start: what a restored backup brought back, or a
// crash left, is erased. Then it retries what is still running.
func (e *Eraser) Run(ctx context.Context) error {
	for first := true; ; first = false {
		if err := e.replay(ctx, first); err != nil && ctx.Err() == nil {
			e.deps.Log.Warn("erasure ledger was not replayed", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(replayRetry):
		}
	}
}

func (e *Eraser) replay(ctx context.Context, all bool) error {
	ledger, err := e.Ledger(ctx)
	if err != nil {
		return err
	}
	if err := e.r.saveLedger(ledger); err != nil {
		return err
	}
	var errs []error
	for _, entry := range ledger {
		again := entry.State != ErasureDone
		if !again && all {
			left, err := e.left(ctx, entry.Device)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			device, err := e.r.Lookup(ctx, entry.Device)
			if err != nil && fleet.CodeOf(err) != fleet.CodeNotFound {
				errs = append(errs, err)
				continue
			}
			if again = left > 0 || err == nil && device.ErasedAt.IsZero(); again {
				entry.Replays++
				e.deps.Log.Warn("data of an erased device are back, erasing them again", "device", entry.Device, "rows", left)
			}
		}
		if again {
			if _, err := e.run(ctx, entry); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// left counts what there is of a device in ClickHouse and on the log.
func (e *Eraser) left(ctx context.Context, device string) (uint64, error) {
	rows, err := e.deps.Wiper.DeviceRows(ctx, device)
	if err != nil {
		return 0, err
	}
	delete(rows, "devices") // the registry's tombstone
	delete(rows, "quarantines")
	var n uint64
	for _, count := range rows {
		n += count
	}
	for _, s := range streamsOf(device) {
		count, err := s.count(ctx, e.r.deps.Bus)
		if err != nil {
			return 0, err
		}
		if !s.tombstone {
			n += count
		}
	}
	return n, nil
}

// Ledger lists every erasure, from the bucket and from the copy beside the
// keys, which a restored broker does not lose.
func (e *Eraser) Ledger(ctx context.Context) ([]Erasure, error) {
	list, err := listJSON[Erasure](ctx, e.r, bus.BucketErasure, ">")
	if err != nil {
		return nil, err
	}
	copied, err := e.r.loadLedger()
	if err != nil {
		return nil, err
	}
	byDevice := map[string]Erasure{}
	for _, entry := range copied {
		byDevice[entry.Device] = entry
	}
	for _, entry := range list {
		byDevice[entry.Device] = entry
	}
	return slices.SortedFunc(maps.Values(byDevice), func(a, b Erasure) int {
		if c := b.RequestedAt.Compare(a.RequestedAt); c != 0 {
			return c
		}
		return strings.Compare(a.Device, b.Device)
	}), nil
}

// Erase retires a device, cuts it off and deletes all that is known of it. It
// returns once a query of every store has found nothing, with a signed
// receipt. Else the ledger keeps it as running, and it is tried again. Codes:
// not_found, conflict (a gateway with children), unavailable.
func (e *Eraser) Erase(ctx context.Context, id, actor, reason string) (Erasure, error) {
	device, err := e.r.Lookup(ctx, id)
	if err != nil {
		return Erasure{}, err
	}
	if children := e.r.Children(id); len(children) > 0 {
		return Erasure{}, fleet.Errorf(fleet.CodeConflict, "device %s is the gateway of %d devices, such as %s: retire or erase those first", id, len(children), children[0])
	}
	entry := Erasure{Device: id, State: ErasureRunning, Reason: reason, RequestedBy: actor, RequestedAt: e.r.deps.Clock().UTC()}
	if known, err := readJSON[Erasure](ctx, e.r, bus.BucketErasure, id); err == nil && !device.ErasedAt.IsZero() {
		entry.RequestedBy, entry.RequestedAt, entry.Reason, entry.Replays = known.RequestedBy, known.RequestedAt, known.Reason, known.Replays
	}
	return e.run(ctx, entry)
}

// run does an erasure, from its start: every step may be repeated.
func (e *Eraser) run(ctx context.Context, entry Erasure) (Erasure, error) {
	ctx, cancel := context.WithTimeout(ctx, eraseWithin)
	defer cancel()
	entry.State, entry.Failure, entry.Receipt, entry.CompletedAt = ErasureRunning, "", nil, time.Time{}
	if err := e.write(ctx, entry); err != nil {
		return entry, err
	}
	places, err := e.wipe(ctx, entry)
	if err == nil {
		for _, p := range places {
			if p.Left > 0 {
				err = errors.Join(err, fleet.Errorf(fleet.CodeUnavailable, "%d are left in %s", p.Left, p.Place))
			}
		}
	}
	if err == nil {
		entry.State, entry.CompletedAt = ErasureDone, e.r.deps.Clock().UTC()
		entry.Receipt, err = e.r.deps.CA.receipt(Statement{
			Device: entry.Device, Reason: entry.Reason, RequestedBy: entry.RequestedBy, RequestedAt: entry.RequestedAt,
			VerifiedAt: entry.CompletedAt, Places: places, Kept: kept,
		})
	}
	if err != nil {
		entry.State, entry.Receipt, entry.Failure = ErasureRunning, nil, err.Error()
		e.deps.Log.Warn("erasure is not complete", "device", entry.Device, "error", err)
		return entry, errors.Join(err, e.write(context.WithoutCancel(ctx), entry))
	}
	e.deps.Log.Info("device erased", "device", entry.Device, "actor", entry.RequestedBy)
	return entry, e.write(ctx, entry)
}

// write keeps an entry in the bucket and in the copy.
func (e *Eraser) write(ctx context.Context, entry Erasure) error {
	if err := writeJSON(ctx, e.r, bus.BucketErasure, entry.Device, entry); err != nil {
		return err
	}
	ledger, err := e.Ledger(ctx)
	if err != nil {
		return err
	}
	return e.r.saveLedger(ledger)
}

func (e *Eraser) wipe(ctx context.Context, entry Erasure) ([]Place, error) {
	id := entry.Device
	if err := e.r.forget(ctx, entry); err != nil {
		return nil, err
	}
	e.settle(ctx, id)
	incidents, err := e.redact(ctx, id)
	if err != nil {
		return nil, err
	}
	e.settle(ctx, id) // what the movers hold already is not seen once it is purged
	var places []Place
	all := streamsOf(id)
	for _, incident := range incidents {
		all = append(all, stream{core: true, name: bus.StreamIncidents, subjects: []string{bus.SubjectIncident + "." + incident}},
			stream{core: true, name: "KV_" + bus.BucketIncident, subjects: []string{"$KV." + bus.BucketIncident + "." + incident}, tombstone: true})
	}
	deleted := map[string]*Place{}
	for _, s := range all {
		n, err := s.purge(ctx, e.r.deps.Bus)
		if err != nil {
			return nil, err
		}
		left, err := s.count(ctx, e.r.deps.Bus)
		if err != nil {
			return nil, err
		}
		name := "stream " + s.name
		p := deleted[name]
		if p == nil {
			p = &Place{Place: name}
			deleted[name] = p
		}
		p.Deleted += n
		if !s.tombstone {
			p.Left += left
		}
	}
	rows, left, err := e.wipeRows(ctx, id)
	if err != nil {
		return nil, err
	}
	for _, table := range slices.Sorted(maps.Keys(rows)) {
		places = append(places, Place{Place: "clickhouse " + table, Deleted: rows[table], Left: left[table]})
	}
	for _, name := range slices.Sorted(maps.Keys(deleted)) {
		places = append(places, *deleted[name])
	}
	if e.deps.Baselines != nil {
		states, err := e.deps.Baselines(ctx, id)
		if err != nil {
			return nil, err
		}
		places = append(places, Place{Place: "detector", Left: uint64(len(states))})
	}
	return places, nil
}

// wipeRows deletes the rows, again when a mover brought some meanwhile.
func (e *Eraser) wipeRows(ctx context.Context, id string) (deleted, left map[string]uint64, err error) {
	deleted = map[string]uint64{}
	for range wipeTries {
		e.settle(ctx, id)
		before, err := e.deps.Wiper.DeviceRows(ctx, id)
		if err != nil {
			return nil, nil, err
		}
		if err := e.deps.Wiper.EraseDevice(ctx, id); err != nil {
			return nil, nil, err
		}
		if left, err = e.deps.Wiper.DeviceRows(ctx, id); err != nil {
			return nil, nil, err
		}
		for table, rows := range before {
			deleted[table] += rows - min(rows, left[table])
		}
		var n uint64
		for _, rows := range left {
			n += rows
		}
		if n == 0 {
			break
		}
		select {
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-time.After(time.Second):
		}
	}
	return deleted, left, nil
}

// settle waits until nobody of the device is connected and the movers have
// stored what is on the streams now. It is no fault when that takes too long:
// what comes later is found by the verification.
func (e *Eraser) settle(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(ctx, settleWait)
	defer cancel()
	until, err := e.ends(ctx)
	ticker := time.NewTicker(settlePoll)
	defer ticker.Stop()
	for calm := 0; calm < settleCalm; calm++ {
		if err != nil || !e.settled(ctx, id, until) {
			calm = -1
		}
		select {
		case <-ctx.Done():
			e.deps.Log.Warn("erasure goes on although not everything has settled", "device", id, "error", err)
			return
		case <-ticker.C:
		}
	}
}

// mover is how far a stream is stored, as its mover notes it in bucket
// "position" just before it stores.
type mover struct {
	Stream string `json:"stream"`
	Last   uint64 `json:"last"`
}

func (e *Eraser) movers(ctx context.Context) ([]mover, error) {
	kv, err := e.r.deps.Bus.Bucket(ctx, bus.BucketPosition)
	if err != nil {
		return nil, err
	}
	watcher, err := kv.WatchAll(ctx, jetstream.IgnoreDeletes())
	if err != nil {
		return nil, fmt.Errorf("list positions: %w", err)
	}
	defer watcher.Stop() //nolint:errcheck // nothing can be done about it
	var all []mover
	// The client misses an end of ctx that comes while it subscribes.
	defer context.AfterFunc(ctx, func() { _ = watcher.Stop() })()
	for entry := range watcher.Updates() {
		if entry == nil {
			return all, nil
		}
		var m mover // other entries of the bucket are numbers
		if json.Unmarshal(entry.Value(), &m) == nil && m.Stream != "" {
			all = append(all, m)
		}
	}
	return nil, fleet.Errorf(fleet.CodeUnavailable, "list positions: the broker ended the watch")
}

// ends is the last message of every stream that a mover stores.
func (e *Eraser) ends(ctx context.Context) (map[string]uint64, error) {
	all, err := e.movers(ctx)
	if err != nil {
		return nil, err
	}
	ends := map[string]uint64{}
	for _, m := range all {
		found, err := stream{core: m.Stream != bus.StreamFleet, name: m.Stream}.open(ctx, e.r.deps.Bus)
		if err != nil {
			return nil, err
		}
		ends[m.Stream] = found.CachedInfo().State.LastSeq
	}
	return ends, nil
}

func (e *Eraser) settled(ctx context.Context, id string, until map[string]uint64) bool {
	live, _, err := e.r.deps.Bus.Live(ctx, id)
	if err != nil || len(live) > 0 {
		return false
	}
	all, err := e.movers(ctx)
	if err != nil {
		return false
	}
	for _, m := range all {
		if m.Last < until[m.Stream] {
			return false
		}
	}
	return true
}

// stream is where on a stream a device's messages are.
type stream struct {
	core      bool // of account CORDON
	name      string
	subjects  []string
	tombstone bool // the newest message of each subject says only that the device is gone, and stays
}

func streamsOf(id string) []stream {
	return []stream{
		{name: bus.StreamFleet, subjects: []string{
			bus.SubjectTelemetry + "." + id, bus.SubjectTelemetry + ".*." + id, bus.SubjectAudit + "." + id, bus.SubjectAudit + ".*." + id,
			bus.SubjectPosture + "." + id, bus.SubjectControl + ".quarantine." + id,
		}},
		{name: bus.StreamFleet, subjects: []string{bus.SubjectControl + ".device." + id}, tombstone: true},
		{core: true, name: bus.StreamFindings, subjects: []string{bus.SubjectFinding + "." + id}},
		{core: true, name: "KV_" + bus.BucketDevice, subjects: []string{"$KV." + bus.BucketDevice + "." + id}, tombstone: true},
		{core: true, name: "KV_" + bus.BucketQuarantine, subjects: []string{"$KV." + bus.BucketQuarantine + "." + id}, tombstone: true},
	}
}

func (s stream) open(ctx context.Context, b *bus.Bus) (jetstream.Stream, error) {
	js := b.Fleet
	if s.core {
		js = b.Core
	}
	found, err := js.Stream(ctx, s.name)
	if err != nil {
		return nil, fmt.Errorf("open stream %s: %w", s.name, err)
	}
	return found, nil
}

func (s stream) count(ctx context.Context, b *bus.Bus) (uint64, error) {
	found, err := s.open(ctx, b)
	if err != nil {
		return 0, err
	}
	var n uint64
	for _, subject := range s.subjects {
		info, err := found.Info(ctx, jetstream.WithSubjectFilter(subject))
		if err != nil {
			return 0, fmt.Errorf("count %s: %w", subject, err)
		}
		for _, messages := range info.State.Subjects {
			n += messages
		}
	}
	return n, nil
}

// purge deletes the messages and says how many.
func (s stream) purge(ctx context.Context, b *bus.Bus) (uint64, error) {
	found, err := s.open(ctx, b)
	if err != nil {
		return 0, err
	}
	before, err := s.count(ctx, b)
	if err != nil {
		return 0, err
	}
	for _, subject := range s.subjects {
		options := []jetstream.StreamPurgeOpt{jetstream.WithPurgeSubject(subject)}
		if s.tombstone {
			options = append(options, jetstream.WithPurgeKeep(1))
		}
		if err := found.Purge(ctx, options...); err != nil {
			return 0, fmt.Errorf("purge %s: %w", subject, err)
		}
	}
	after, err := s.count(ctx, b)
	return before - min(before, after), err
}

// redact writes tombstones over the device's quarantine and its incidents,
// and takes their notifications away. Their earlier revisions are purged
// behind it. It returns the incidents.
func (e *Eraser) redact(ctx context.Context, id string) ([]string, error) {
	q, err := readJSON[fleet.Quarantine](ctx, e.r, bus.BucketQuarantine, id)
	if err == nil {
		now := e.r.deps.Clock().UTC()
		err = writeJSON(ctx, e.r, bus.BucketQuarantine, id, fleet.Quarantine{
			ID: q.ID, Device: id, Level: q.Level, State: fleet.Released, Reason: "erased", Actor: "cordon", RequestedAt: q.RequestedAt, ReleasedAt: now, ReleasedBy: "cordon",
		})
	}
	if err != nil && fleet.CodeOf(err) != fleet.CodeNotFound {
		return nil, err
	}
	all, err := listJSON[fleet.Incident](ctx, e.r, bus.BucketIncident, ">")
	if err != nil {
		return nil, err
	}
	var own []string
	for _, i := range all {
		if i.Device != id || i.Scope != "" && i.Scope != fleet.ScopeDevice {
			continue
		}
		own = append(own, i.ID)
		gone := fleet.Incident{
			ID: i.ID, Number: i.Number, Device: "erased", Title: "Erased", Severity: i.Severity, State: fleet.Resolved,
			OpenedAt: i.OpenedAt, UpdatedAt: e.r.deps.Clock().UTC(), ResolvedBy: "cordon",
		}
		if err := writeJSON(ctx, e.r, bus.BucketIncident, i.ID, gone); err != nil {
			return nil, err
		}
	}
	return own, e.dropDeliveries(ctx, own)
}

func (e *Eraser) dropDeliveries(ctx context.Context, incidents []string) error {
	if len(incidents) == 0 {
		return nil
	}
	kv, err := e.r.deps.Bus.Bucket(ctx, bus.BucketDelivery)
	if err != nil {
		return err
	}
	watcher, err := kv.WatchAll(ctx, jetstream.IgnoreDeletes())
	if err != nil {
		return fmt.Errorf("list deliveries: %w", err)
	}
	defer watcher.Stop() //nolint:errcheck // nothing can be done about it
	// The client misses an end of ctx that comes while it subscribes.
	defer context.AfterFunc(ctx, func() { _ = watcher.Stop() })()
	for entry := range watcher.Updates() {
		if entry == nil {
			return nil
		}
		var d struct {
			Incident string `json:"incident"`
		}
		if json.Unmarshal(entry.Value(), &d) != nil || !slices.Contains(incidents, d.Incident) {
			continue
		}
		if err := kv.Purge(ctx, entry.Key()); err != nil {
			return fmt.Errorf("remove delivery: %w", err)
		}
	}
	return fleet.Errorf(fleet.CodeUnavailable, "list deliveries: the broker ended the watch")
}
