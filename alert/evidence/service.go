package evidence

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

const (
	consumerName = "evidence"
	objectsName  = "evidence"
	headKey      = "evidence-head"
	ackWait      = 2 * time.Minute
	around       = 15 * time.Minute // before the first and after the last finding
	maxDevices   = 20               // of a campaign, whose readings are gathered
	maxEnvelope  = 24 * time.Hour
)

// Sources are where a snapshot comes from. A nil one is left out; one that
// fails is named in the manifest.
type Sources struct {
	Incident    func(ctx context.Context, id string) (fleet.Incident, error)
	Findings    func(ctx context.Context, ids []string) ([]fleet.Finding, error)
	Readings    func(ctx context.Context, device string, from, to time.Time) (any, error)
	Audit       func(ctx context.Context, device string, from, to time.Time) (any, error)
	Baselines   func(ctx context.Context, device string) ([]fleet.BaselineState, error)
	Connections func(ctx context.Context, device string) ([]fleet.Connection, []fleet.BrokerProof, error)
	Rules       func() []fleet.Rule
	Device      func(id string) (fleet.Device, bool)
}

// Deps is what the service works with.
type Deps struct {
	Bus     *bus.Bus
	Sources Sources
	Key     ed25519.PrivateKey // see LoadKey
	Log     *slog.Logger
	Clock   func() time.Time
}

// Service seals evidence. Its methods are safe for concurrent use.
type Service struct {
	deps Deps
	log  *slog.Logger

	mu      sync.Mutex
	objects jetstream.ObjectStore
	counter jetstream.KeyValue
}

// New makes a service; nothing happens before Run.
func New(deps Deps) *Service {
	if deps.Clock == nil {
		deps.Clock = time.Now
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	return &Service{deps: deps, log: deps.Log.With("stage", "evidence")}
}

// LoadKey reads the signing key from dir, or makes one (mode 0600). The public
// key lies beside it, to be kept elsewhere.
func LoadKey(dir string) (ed25519.PrivateKey, error) {
	path := filepath.Join(dir, "evidence.key")
	seed, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		seed = make([]byte, ed25519.SeedSize)
		rand.Read(seed) // never fails
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make %s: %w", dir, err)
		}
		err = os.WriteFile(path, seed, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("read evidence key: %w", err)
	}
	if len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("read evidence key %s: it has %d bytes, not %d", path, len(seed), ed25519.SeedSize)
	}
	key := ed25519.NewKeyFromSeed(seed)
	public := filepath.Join(dir, "evidence.pub")                                                                                // 0600 like all of the directory; copy it to give it away
	if err := errors.Join(os.WriteFile(public, key.Public().(ed25519.PublicKey), 0o600), os.Chmod(public, 0o600)); err != nil { //nolint:gosec // the key directory of the configuration
		return nil, fmt.Errorf("write public evidence key: %w", err)
	}
	return key, nil
}

func (s *Service) open(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.objects != nil {
		return nil
	}
	objects, err := s.deps.Bus.Core.CreateOrUpdateObjectStore(ctx, jetstream.ObjectStoreConfig{Bucket: objectsName, Storage: jetstream.FileStorage})
	if err != nil {
		return fmt.Errorf("open object store %s: %w", objectsName, err)
	}
	counter, err := s.deps.Bus.Bucket(ctx, bus.BucketCounter)
	if err != nil {
		return err
	}
	s.objects, s.counter = objects, counter
	return nil
}

// Run seals evidence of grave incidents until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	if err := s.open(ctx); err != nil {
		return err
	}
	consumer, err := s.deps.Bus.Core.CreateOrUpdateConsumer(ctx, bus.StreamIncidents, jetstream.ConsumerConfig{
		Durable: consumerName, AckPolicy: jetstream.AckExplicitPolicy, AckWait: ackWait, MaxAckPending: 1, MaxDeliver: 5,
	})
	if err != nil {
		return fmt.Errorf("create consumer %s: %w", consumerName, err)
	}
	iter, err := consumer.Messages(jetstream.PullMaxMessages(1))
	if err != nil {
		return fmt.Errorf("consume %s: %w", bus.StreamIncidents, err)
	}
	stop := context.AfterFunc(ctx, iter.Stop)
	defer stop()
	for {
		msg, err := iter.Next()
		if errors.Is(err, jetstream.ErrMsgIteratorClosed) {
			return nil
		}
		if err != nil {
			s.log.Debug("waiting for incident changes", "error", err)
			continue
		}
		var c fleet.IncidentChange
		if err := json.Unmarshal(msg.Data(), &c); err == nil && grave(c) {
			if err := s.sealChange(ctx, c); err != nil {
				s.log.Warn("evidence is not sealed yet", "change", c.ID, "error", err)
				_ = msg.NakWithDelay(5 * time.Second)
				continue
			}
		}
		_ = msg.Ack()
	}
}

func grave(c fleet.IncidentChange) bool {
	return (c.Change == "opened" || c.Change == "escalated") && c.Incident.Severity.Rank() >= fleet.High.Rank()
}

func (s *Service) sealChange(ctx context.Context, c fleet.IncidentChange) error {
	name := c.ID + ".zip"
	if _, err := s.objects.GetInfo(ctx, name); err == nil {
		return nil
	}
	_, _, err := s.seal(ctx, c.Incident.ID, "cordon", c.Change, name)
	return err
}

// Archive returns the newest archive of an incident; fresh, or without any,
// it seals one now. CodeNotFound if there is no such incident.
func (s *Service) Archive(ctx context.Context, id, actor string, fresh bool) (name string, raw []byte, err error) {
	if err := s.open(ctx); err != nil {
		return "", nil, err
	}
	if !fresh {
		if name, raw, err = s.newest(ctx, id); err != nil || raw != nil {
			return name, raw, err
		}
	}
	return s.seal(ctx, id, actor, "asked for", fmt.Sprintf("%s.asked-%d.zip", id, s.deps.Clock().UnixNano()))
}

func (s *Service) newest(ctx context.Context, id string) (string, []byte, error) {
	list, err := s.objects.List(ctx)
	if errors.Is(err, jetstream.ErrNoObjectsFound) {
		return "", nil, nil
	}
	if err != nil {
		return "", nil, fmt.Errorf("list evidence: %w", err)
	}
	var found *jetstream.ObjectInfo
	for _, o := range list {
		if strings.HasPrefix(o.Name, id+".") && strings.HasSuffix(o.Name, ".zip") && (found == nil || o.ModTime.After(found.ModTime)) {
			found = o
		}
	}
	if found == nil {
		return "", nil, nil
	}
	raw, err := s.objects.GetBytes(ctx, found.Name)
	if err != nil {
		return "", nil, fmt.Errorf("read evidence %s: %w", found.Name, err)
	}
	return found.Name, raw, nil
}

// head is the end of the chain.
type head struct {
	Number uint64 `json:"number"`
	Hash   string `json:"hash"`
}

// seal gathers, signs and stores. The object is written before the head of
// the chain moves: a crash in between leaves an archive that the next one
// does not follow, and its change is sealed again under the same name.
func (s *Service) seal(ctx context.Context, id, actor, why, name string) (string, []byte, error) {
	inc, err := s.deps.Sources.Incident(ctx, id)
	if err != nil {
		return "", nil, err
	}
	members, missing := s.gather(ctx, inc)
	s.mu.Lock()
	defer s.mu.Unlock()
	var last head
	var revision uint64
	entry, err := s.counter.Get(ctx, headKey)
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound):
	case err != nil:
		return "", nil, fmt.Errorf("read head of the evidence chain: %w", err)
	default:
		revision = entry.Revision()
		if err := json.Unmarshal(entry.Value(), &last); err != nil {
			return "", nil, fmt.Errorf("read head of the evidence chain: %w", err)
		}
	}
	archive, manifest, err := pack(Manifest{
		Version: 1, Number: last.Number + 1, Incident: inc.ID, SealedAt: s.deps.Clock().UTC(), SealedBy: actor, Why: why,
		Previous: last.Hash, Devices: devicesOf(inc), Missing: missing,
	}, members, s.deps.Key)
	if err != nil {
		return "", nil, err
	}
	if _, err := s.objects.PutBytes(ctx, name, archive); err != nil {
		return "", nil, fmt.Errorf("store evidence %s: %w", name, err)
	}
	if _, err := s.objects.PutBytes(ctx, fmt.Sprintf("chain.%08d.json", last.Number+1), manifest); err != nil {
		return "", nil, fmt.Errorf("store manifest of %s: %w", name, err)
	}
	raw, err := json.Marshal(head{last.Number + 1, digest(manifest)})
	if err != nil {
		return "", nil, fmt.Errorf("encode head of the evidence chain: %w", err)
	}
	if revision == 0 {
		_, err = s.counter.Create(ctx, headKey, raw)
	} else {
		_, err = s.counter.Update(ctx, headKey, raw, revision)
	}
	if err != nil {
		return "", nil, fmt.Errorf("move head of the evidence chain: %w", err)
	}
	return name, archive, nil
}

func devicesOf(inc fleet.Incident) []string {
	if len(inc.Devices) > 0 {
		return inc.Devices[:min(len(inc.Devices), maxDevices)]
	}
	return []string{inc.Device}
}

// gather reads every source around the findings.
func (s *Service) gather(ctx context.Context, inc fleet.Incident) (members map[string][]byte, missing []string) {
	members, missing = map[string][]byte{}, []string{}
	add := func(name string, v any, err error) {
		raw, encErr := json.MarshalIndent(v, "", " ")
		if err = cmp.Or(err, encErr); err != nil {
			missing = append(missing, name+": can't be read now")
			s.log.Warn("evidence is incomplete", "incident", inc.ID, "member", name, "error", err)
			return
		}
		members[name] = raw
	}
	add("incident.json", inc, nil)
	src := s.deps.Sources
	if src.Findings != nil && len(inc.FindingIDs) > 0 {
		v, err := src.Findings(ctx, inc.FindingIDs)
		add("findings.json", v, err)
	}
	if src.Rules != nil {
		var rules []fleet.Rule
		for _, r := range src.Rules() {
			if slices.Contains(inc.Rules, r.ID) {
				rules = append(rules, r)
			}
		}
		add("rules.json", rules, nil)
	}
	from, to := inc.FirstAt.Add(-around), inc.LastAt.Add(around)
	if to.Sub(from) > maxEnvelope {
		from = to.Add(-maxEnvelope)
		missing = append(missing, fmt.Sprintf("readings and audit events before %s: more than a day before the last finding", from.Format(time.RFC3339)))
	}
	for _, device := range devicesOf(inc) {
		s.gatherDevice(ctx, device, from, to, add)
	}
	if inc.DeviceCount > maxDevices {
		missing = append(missing, fmt.Sprintf("%d more devices: only the first %d are gathered", inc.DeviceCount-maxDevices, maxDevices))
	}
	return members, missing
}

func (s *Service) gatherDevice(ctx context.Context, device string, from, to time.Time, add func(string, any, error)) {
	src := s.deps.Sources
	dir := "devices/" + device + "/"
	if src.Device != nil {
		if d, ok := src.Device(device); ok {
			d.TokenHash = ""
			add(dir+"device.json", d, nil)
		}
	}
	if src.Readings != nil {
		v, err := src.Readings(ctx, device, from, to)
		add(dir+"readings.json", v, err)
	}
	if src.Audit != nil {
		v, err := src.Audit(ctx, device, from, to)
		add(dir+"audit.json", v, err)
	}
	if src.Baselines != nil {
		v, err := src.Baselines(ctx, device)
		add(dir+"baselines.json", v, err)
	}
	if src.Connections != nil {
		connections, brokers, err := src.Connections(ctx, device)
		add(dir+"connections.json", map[string]any{"connections": connections, "brokers": brokers}, err)
	}
}

// Forget removes the archives that speak of a device which is erased. Their
// manifests stay: they hold hashes only, and the chain goes on.
func (s *Service) Forget(ctx context.Context, device string) (removed int, err error) {
	if err := s.open(ctx); err != nil {
		return 0, err
	}
	list, err := s.objects.List(ctx)
	if errors.Is(err, jetstream.ErrNoObjectsFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("list evidence: %w", err)
	}
	for _, o := range list {
		if !strings.HasSuffix(o.Name, ".zip") {
			continue
		}
		raw, err := s.objects.GetBytes(ctx, o.Name)
		if err != nil {
			return removed, fmt.Errorf("read evidence %s: %w", o.Name, err)
		}
		report, err := Verify(raw, nil)
		if err != nil || !slices.Contains(report.Manifest.Devices, device) {
			continue
		}
		if err := s.objects.Delete(ctx, o.Name); err != nil {
			return removed, fmt.Errorf("remove evidence %s: %w", o.Name, err)
		}
		removed++
	}
	return removed, nil
}
