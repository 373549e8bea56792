package operator

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"cordon/internal/bus"
	"cordon/internal/fleet"
	"cordon/internal/seal"
)

// Config bounds sessions and tokens.
type Config struct {
	IdleTimeout     time.Duration // a session ends after this long without use
	AbsoluteTimeout time.Duration // and after this long in any case
	MaxOperators    int
	MaxTokens       int // per operator
	MaxSessions     int // per operator; the oldest ends
	// OneTimeLife is how long a one-time password is good, other than the first
	// administrator's, whose file lies on the host.
	OneTimeLife time.Duration
	// ChallengeWork is how many numbers a proof-of-work challenge may need.
	ChallengeWork int64
	// Hashing is the cost of a password hash; the zero value is the default
	// (19 MiB, two passes). Tests lower it.
	Hashing Cost
}

// DefaultConfig suits people: eight hours idle, a day at most.
func DefaultConfig() Config {
	return Config{
		IdleTimeout: 8 * time.Hour, AbsoluteTimeout: 24 * time.Hour,
		MaxOperators: 500, MaxTokens: 50, MaxSessions: 20, OneTimeLife: 48 * time.Hour, ChallengeWork: challengeWork,
		Hashing: Cost{MemoryKiB: 19 * 1024, Passes: 2},
	}
}

// Deps are what the directory needs.
type Deps struct {
	Bus   *bus.Bus
	Log   *slog.Logger
	Clock func() time.Time
	// Secrets seals second factors; nil: nobody can set one up.
	Secrets *seal.Ring
	// LogKey signs the heads of the operator log; nil: they are not signed.
	LogKey ed25519.PrivateKey
	// LogAnchor is the file that remembers the newest head; empty: none does.
	LogAnchor string
}

// Directory knows the operators. Its methods return *fleet.Error: invalid,
// unauthenticated, forbidden, not_found, conflict, too_many.
type Directory struct {
	cfg    Config
	deps   Deps
	hasher *hasher
	slow   *throttle

	puzzles puzzles
	log     chain

	managing     sync.Mutex
	passwordFile string // set by Setup, before anything else runs
}

// New makes an inert directory over the buckets operator and session.
func New(cfg Config, deps Deps) *Directory {
	defaults := DefaultConfig()
	if cfg.OneTimeLife <= 0 {
		cfg.OneTimeLife = defaults.OneTimeLife
	}
	if cfg.ChallengeWork <= 0 {
		cfg.ChallengeWork = defaults.ChallengeWork
	}
	return &Directory{
		cfg: cfg, deps: deps, hasher: newHasher(cfg.Hashing), slow: newThrottle(),
		puzzles: puzzles{key: []byte(deps.Bus.MsgID("sign-in challenge")), work: cfg.ChallengeWork, used: map[string]time.Time{}},
	}
}

// Operator is a person who uses Cordon.
type Operator struct {
	Name         string    `json:"name"`
	Role         Role      `json:"role"`
	Hash         string    `json:"hash"` // argon2id; never leaves this package's callers' memory
	MustChange   bool      `json:"must_change"`
	CreatedAt    time.Time `json:"created_at"`
	CreatedBy    string    `json:"created_by"`
	ChangedAt    time.Time `json:"changed_at,omitzero"` // of the password
	LastSignInAt time.Time `json:"last_sign_in_at,omitzero"`

	Disabled     bool      `json:"disabled,omitempty"`
	Scope        Scope     `json:"scope,omitzero"`
	OneTimeUntil time.Time `json:"one_time_until,omitzero"` // end of a one-time password; zero: none
	Former       []string  `json:"former,omitempty"`        // hashes of former passwords, the newest first

	TOTP         string    `json:"totp,omitempty"`      // the secret, sealed
	TOTPStep     int64     `json:"totp_step,omitempty"` // of the newest code that was used
	PendingTOTP  string    `json:"pending_totp,omitempty"`
	PendingUntil time.Time `json:"pending_until,omitzero"`
	Recovery     []string  `json:"recovery,omitempty"` // SHA-256 of recovery codes, hex

	Sources map[string]time.Time `json:"sources,omitempty"` // where they signed in from, and when last
	Notices []Notice             `json:"notices,omitempty"`
}

// Notice tells an operator what happened to their account.
type Notice struct {
	At   time.Time `json:"at"`
	Text string    `json:"text"`
}

const (
	maxHistory = 24 // former passwords
	maxNotices = 10
	maxSources = 20
	sourceFor  = 90 * 24 * time.Hour // a source is known this long after the last sign-in from it
)

// tell leaves a notice that the operator sees.
func (o *Operator) tell(now time.Time, text string) {
	o.Notices = append([]Notice{{now.UTC(), text}}, o.Notices...)
	o.Notices = o.Notices[:min(len(o.Notices), maxNotices)]
}

// signedIn remembers from where.
func (o *Operator) signedIn(source string, now time.Time) {
	known := map[string]time.Time{source: now}
	for s, at := range o.Sources {
		if s != source && now.Sub(at) < sourceFor {
			known[s] = at
		}
	}
	for len(known) > maxSources {
		oldest, at := "", now
		for s, t := range known {
			if s != source && !t.After(at) {
				oldest, at = s, t
			}
		}
		delete(known, oldest)
	}
	o.Sources, o.LastSignInAt = known, now
}

// Principal is who acts: an operator with a session, or a program with a
// token.
type Principal struct {
	Name       string
	Role       Role
	MustChange bool      // nothing but a change of password is allowed
	ExpiresAt  time.Time // of the session or token; zero: never
	TokenID    string    // "" for a session
	TokenName  string
	TokenScope Scope
	Scope      Scope     // of the operator
	MustSetUp  bool      // nothing but setting up a second factor is allowed
	ProvedAt   time.Time // when password and second factor were last given; zero for a token
	Factor     bool      // a second factor is set up
	Recovery   int       // recovery codes left
	Notices    []Notice
	session    string // key of the session; "" for a token
}

// FirstAdmin is the operator that the first start makes.
const FirstAdmin = "admin"

var nameRule = regexp.MustCompile(`^[a-z][a-z0-9_-]{1,63}$`)

const operatorPrefix = "operator."

// Operator reads one operator.
func (d *Directory) Operator(ctx context.Context, name string) (Operator, error) {
	o, _, err := d.operator(ctx, name)
	return o, err
}

func (d *Directory) operator(ctx context.Context, name string) (Operator, uint64, error) {
	var o Operator
	if !nameRule.MatchString(name) {
		return o, 0, fleet.Errorf(fleet.CodeNotFound, "there is no operator of that name")
	}
	revision, err := d.read(ctx, bus.BucketOperator, operatorPrefix+name, &o)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return o, 0, fleet.Errorf(fleet.CodeNotFound, "there is no operator %q", name)
	}
	return o, revision, err
}

// Operators lists every operator by name.
func (d *Directory) Operators(ctx context.Context) ([]Operator, error) {
	return list[Operator](ctx, d, bus.BucketOperator, operatorPrefix)
}

// Add makes an operator with a random one-time password.
func (d *Directory) Add(ctx context.Context, actor, name string, role Role) (Operator, string, error) {
	return d.AddScoped(ctx, actor, name, role, Scope{})
}

// AddScoped is Add for an operator who sees only a part of the fleet.
func (d *Directory) AddScoped(ctx context.Context, actor, name string, role Role, scope Scope) (Operator, string, error) {
	if err := scope.check(); err != nil {
		return Operator{}, "", err
	}
	if name == localActor { // acts of Cordon itself carry this name
		return Operator{}, "", fleet.Errorf(fleet.CodeInvalid, "operator name %q is taken by Cordon itself", name).On("body.name")
	}
	if !nameRule.MatchString(name) {
		return Operator{}, "", fleet.Errorf(fleet.CodeInvalid, "operator name %q: use 2 to 64 of a-z 0-9 _ -, beginning with a letter", name).On("body.name")
	}
	if _, err := fleet.Parse("role", string(role), Roles); err != nil {
		return Operator{}, "", fleet.Errorf(fleet.CodeInvalid, "%w", err).On("body.role")
	}
	known, err := d.Operators(ctx)
	if err != nil {
		return Operator{}, "", err
	}
	if len(known) >= d.cfg.MaxOperators {
		return Operator{}, "", fleet.Errorf(fleet.CodeTooMany, "there are %d operators already, the limit is %d", len(known), d.cfg.MaxOperators)
	}
	password := oneTimePassword()
	hash, err := d.hasher.hash(ctx, password)
	if err != nil {
		return Operator{}, "", err
	}
	now := d.deps.Clock().UTC()
	o := Operator{Name: name, Role: role, Scope: scope, Hash: hash, MustChange: true, OneTimeUntil: now.Add(d.cfg.OneTimeLife), CreatedAt: now, CreatedBy: actor}
	if err := d.create(ctx, bus.BucketOperator, operatorPrefix+name, o); err != nil {
		if errors.Is(err, jetstream.ErrKeyExists) {
			return Operator{}, "", fleet.Errorf(fleet.CodeConflict, "there is an operator %q already", name).On("body.name")
		}
		return Operator{}, "", err
	}
	return o, password, nil
}

// oneTimePassword has 100 random bits in four groups that are easy to type.
func oneTimePassword() string {
	text := strings.ToLower(randomText(13))[:20]
	return strings.Join([]string{text[:5], text[5:10], text[10:15], text[15:]}, "-")
}

// randomText is n random bytes in base 32.
func randomText(n int) string {
	raw := make([]byte, n)
	rand.Read(raw) // never fails: crypto/rand ends the program rather than return an error
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(raw)
}

func digest(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

func (d *Directory) read(ctx context.Context, bucket, key string, into any) (uint64, error) {
	kv, err := d.deps.Bus.Bucket(ctx, bucket)
	if err != nil {
		return 0, err
	}
	entry, err := kv.Get(ctx, key)
	if err != nil {
		return 0, fmt.Errorf("read %s of bucket %s: %w", kind(key), bucket, err)
	}
	if err := json.Unmarshal(entry.Value(), into); err != nil {
		return 0, fmt.Errorf("decode %s of bucket %s: %w", kind(key), bucket, err)
	}
	return entry.Revision(), nil
}

func (d *Directory) create(ctx context.Context, bucket, key string, value any) error {
	return d.write(ctx, bucket, key, value, 0)
}

// write stores value if the entry still has the revision; 0 means that there
// is none yet.
func (d *Directory) write(ctx context.Context, bucket, key string, value any, revision uint64) error {
	kv, err := d.deps.Bus.Bucket(ctx, bucket)
	if err != nil {
		return err
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode %s: %w", kind(key), err)
	}
	if revision == 0 {
		_, err = kv.Create(ctx, key, raw)
	} else {
		_, err = kv.Update(ctx, key, raw, revision)
	}
	if err != nil {
		return fmt.Errorf("write %s of bucket %s: %w", kind(key), bucket, err)
	}
	return nil
}

// wrongRevision says whether a write failed because another was first.
func wrongRevision(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, jetstream.ErrKeyExists) || errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence
}

func (d *Directory) remove(ctx context.Context, bucket, key string) error {
	kv, err := d.deps.Bus.Bucket(ctx, bucket)
	if err != nil {
		return err
	}
	if err := kv.Purge(ctx, key); err != nil {
		return fmt.Errorf("remove %s of bucket %s: %w", kind(key), bucket, err)
	}
	return nil
}

// kind is the part of a key that may be told: what follows is a name or the
// hash of a secret.
func kind(key string) string {
	what, _, _ := strings.Cut(key, ".")
	return what
}

func list[T any](ctx context.Context, d *Directory, bucket, prefix string) ([]T, error) {
	kv, err := d.deps.Bus.Bucket(ctx, bucket)
	if err != nil {
		return nil, err
	}
	lister, err := kv.ListKeysFiltered(ctx, prefix+">")
	if err != nil {
		return nil, fmt.Errorf("list bucket %s: %w", bucket, err)
	}
	var keys []string
	for key := range lister.Keys() {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	items := make([]T, 0, len(keys))
	for _, key := range keys {
		var item T
		_, err := d.read(ctx, bucket, key, &item)
		if errors.Is(err, jetstream.ErrKeyNotFound) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		items = append(items, item)
	}
	return items, nil
}
