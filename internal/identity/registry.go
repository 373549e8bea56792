package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

// positionKey holds, in bucket "position", the revision of bucket "device" up
// to which every change is on the FLEET log.
const positionKey = "control_device"

const watchRetry = time.Second

// Config bounds what the registry hands out.
type Config struct {
	CertificateLife time.Duration // of a device certificate
	TokenLife       time.Duration // of a one-time token, where the enrolment says nothing
	MaxDevices      int           // enrolments beyond are refused
}

// DefaultConfig is a year for certificates and a day for tokens.
func DefaultConfig() Config {
	return Config{CertificateLife: 365 * 24 * time.Hour, TokenLife: 24 * time.Hour, MaxDevices: 200_000}
}

// Deps are what the registry needs.
type Deps struct {
	Bus   *bus.Bus
	CA    *CA
	Clock func() time.Time
	Log   *slog.Logger
}

// Registry is the list of devices: bucket "device", with a view in memory.
// Writes go to the bucket by compare-and-set and are visible in the view of
// the same process when they return.
type Registry struct {
	cfg   Config
	deps  Deps
	ready chan struct{}

	journal  *bus.Journal
	bucketMu sync.Mutex
	kv       jetstream.KeyValue

	makers atomic.Pointer[[]Maker]
	tokens atomic.Int64 // active devices with token credentials

	mu        sync.RWMutex
	devices   map[string]*held
	sorted    []*held // by id, once loaded
	loaded    bool
	version   uint64          // grows with every change of the view
	published map[uint64]bool // revisions that this process put on the log
	facets    map[string]map[string]int
	facetsAt  uint64
}

// held is a device in the view; it is replaced, never changed.
type held struct {
	device   fleet.Device
	revision uint64
	text     string // what Filter.Query is looked for in
}

func hold(device fleet.Device, revision uint64) *held {
	text := append([]string{device.ID, device.Cohort, device.Site, device.Model, device.Firmware, device.Owner}, device.Tags...)
	return &held{device, revision, strings.ToLower(strings.Join(text, "\n"))}
}

// search finds an id's place in the sorted view.
func (r *Registry) search(id string) (int, bool) {
	return slices.BinarySearchFunc(r.sorted, id, func(h *held, id string) int { return strings.Compare(h.device.ID, id) })
}

// NewRegistry makes an inert registry; writes work at once, reads from memory
// once Run has loaded the bucket.
func NewRegistry(cfg Config, deps Deps) *Registry {
	r := &Registry{
		cfg: cfg, deps: deps,
		ready:     make(chan struct{}),
		devices:   map[string]*held{},
		published: map[uint64]bool{},
		journal:   deps.Bus.NewJournal(positionKey, deps.Log),
	}
	deps.CA.Optional(func() bool { return r.tokens.Load() > 0 })
	return r
}

// Ready is closed once the view in memory is complete.
func (r *Registry) Ready() <-chan struct{} { return r.ready }

// bucket opens the bucket once.
func (r *Registry) bucket(ctx context.Context) (jetstream.KeyValue, error) {
	r.bucketMu.Lock()
	defer r.bucketMu.Unlock()
	if r.kv == nil {
		kv, err := r.deps.Bus.Bucket(ctx, bus.BucketDevice)
		if err != nil {
			return nil, err
		}
		r.kv = kv
	}
	return r.kv, nil
}

// Run keeps the view in memory and puts changes on the FLEET log that are not
// there yet. It blocks until ctx ends.
func (r *Registry) Run(ctx context.Context) error {
	var group sync.WaitGroup
	defer group.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var failure error
	group.Go(func() {
		defer stop()
		failure = r.journal.Run(ctx)
	})
	for name, loop := range map[string]func(context.Context) error{"makers": r.watchMakers, "renewals": r.answerRenewals} {
		group.Go(func() { r.again(ctx, name, loop) })
	}
	for {
		err := r.watch(ctx)
		if ctx.Err() != nil {
			group.Wait()
			if errors.Is(failure, context.Canceled) {
				return nil
			}
			return failure
		}
		r.deps.Log.Warn("registry watch ended, starting it again", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(watchRetry):
		}
	}
}

// again runs a loop until ctx ends, starting it over when it fails.
func (r *Registry) again(ctx context.Context, name string, loop func(context.Context) error) {
	for {
		err := loop(ctx)
		if ctx.Err() != nil {
			return
		}
		r.deps.Log.Warn("part of the registry ended, starting it again", "part", name, "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(watchRetry):
		}
	}
}

func (r *Registry) watch(ctx context.Context) error {
	kv, err := r.bucket(ctx)
	if err != nil {
		return err
	}
	watcher, err := kv.WatchAll(ctx)
	if err != nil {
		return fmt.Errorf("watch bucket %s: %w", bus.BucketDevice, err)
	}
	defer watcher.Stop() //nolint:errcheck // nothing can be done about it
	// The client misses an end of ctx that comes while it subscribes.
	defer context.AfterFunc(ctx, func() { _ = watcher.Stop() })()
	for entry := range watcher.Updates() {
		if entry == nil {
			r.finishLoading()
			continue
		}
		device, err := r.observe(entry)
		if err != nil {
			r.deps.Log.Error("registry entry can't be read, leaving it", "device", entry.Key(), "error", err)
			continue
		}
		if err := r.record(device, entry.Revision()); err != nil {
			return err
		}
	}
	return errors.New("watch closed by the broker")
}

// observe takes an entry of the bucket into the view, unless it is older than
// what the view has.
func (r *Registry) observe(entry jetstream.KeyValueEntry) (fleet.Device, error) {
	device := fleet.Device{ID: entry.Key()}
	if entry.Operation() != jetstream.KeyValuePut {
		device.State = fleet.Retired
		r.mu.Lock()
		defer r.mu.Unlock()
		if old, ok := r.devices[device.ID]; ok && old.revision < entry.Revision() {
			r.countTokens(old, fleet.Device{})
			delete(r.devices, device.ID)
			if i, found := r.search(device.ID); found && r.loaded {
				r.sorted = slices.Delete(r.sorted, i, i+1)
			}
			r.version++
		}
		return device, nil
	}
	if err := json.Unmarshal(entry.Value(), &device); err != nil {
		return device, fmt.Errorf("decode device: %w", err)
	}
	r.put(device, entry.Revision())
	return device, nil
}

func (r *Registry) put(device fleet.Device, revision uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old, known := r.devices[device.ID]
	if known && old.revision >= revision {
		return
	}
	r.countTokens(old, device)
	h := hold(device, revision)
	r.devices[device.ID] = h
	r.version++
	if !r.loaded {
		return // sorted when loading ends
	}
	if i, found := r.search(device.ID); found {
		r.sorted[i] = h
	} else {
		r.sorted = slices.Insert(r.sorted, i, h)
	}
}

func (r *Registry) finishLoading() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sorted = make([]*held, 0, len(r.devices))
	for _, h := range r.devices {
		r.sorted = append(r.sorted, h)
	}
	slices.SortFunc(r.sorted, func(a, b *held) int { return strings.Compare(a.device.ID, b.device.ID) })
	if !r.loaded {
		r.loaded = true
		close(r.ready)
	}
}

// record puts the change on the log unless the writer in this process did.
func (r *Registry) record(device fleet.Device, revision uint64) error {
	r.mu.Lock()
	done := r.published[revision]
	delete(r.published, revision)
	r.mu.Unlock()
	if done {
		r.journal.Add(revision, "", nil)
		return nil
	}
	subject, data, err := controlRecord(device)
	if err != nil {
		return err
	}
	r.journal.Add(revision, subject, data)
	return nil
}

func controlRecord(device fleet.Device) (subject string, data []byte, err error) {
	data, err = json.Marshal(fleet.Control{Device: &fleet.DeviceChange{
		ID: device.ID, Cohort: device.Cohort, Tags: device.Tags, TimeZone: device.TimeZone, Historic: device.Historic,
		Retired: device.State == fleet.Revoked || device.State == fleet.Retired, Erased: !device.ErasedAt.IsZero(),
	}})
	if err != nil {
		return "", nil, fmt.Errorf("encode control record: %w", err)
	}
	return bus.SubjectControl + ".device." + device.ID, data, nil
}
