package identity

import (
	"context"
	"slices"
	"strings"
	"time"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

// FleetToken lets many devices enrol by themselves, for a short time, with ids
// of one prefix.
type FleetToken struct {
	ID        string    `json:"id"`
	Prefix    string    `json:"prefix" doc:"Ids that it may enrol."`
	Most      int       `json:"most" doc:"How many devices it may enrol."`
	Used      int       `json:"used"`
	ExpiresAt time.Time `json:"expires_at"`
	RevokedAt time.Time `json:"revoked_at,omitzero"`
	Cohort    string    `json:"cohort,omitempty"`
	Site      string    `json:"site,omitempty"`
	Model     string    `json:"model,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	CreatedBy string    `json:"created_by"`
}

const (
	fleetTokenPrefix = "cordon_fleet_"
	fleetTokenKey    = "fleet."
	// MaxFleetTokenLife is the longest that a fleet token is good for.
	MaxFleetTokenLife = 24 * time.Hour
	// MaxFleetTokenUses is the most devices of one fleet token.
	MaxFleetTokenUses = 10_000
)

// NewFleetToken makes a fleet token for life and returns its secret, of which
// only a hash is kept. Code: invalid.
func (r *Registry) NewFleetToken(ctx context.Context, t FleetToken, life time.Duration) (FleetToken, string, error) {
	if life <= 0 || life > MaxFleetTokenLife {
		return t, "", fleet.Errorf(fleet.CodeInvalid, "a fleet token is good for at most %s", MaxFleetTokenLife).On("hours")
	}
	if t.Most <= 0 || t.Most > MaxFleetTokenUses {
		return t, "", fleet.Errorf(fleet.CodeInvalid, "a fleet token enrols 1 to %d devices", MaxFleetTokenUses).On("most")
	}
	if err := fleet.CheckDeviceID(t.Prefix); err != nil || len(t.Prefix) < minPrefix {
		return t, "", fleet.Errorf(fleet.CodeInvalid, "a prefix has %d to %d of A-Z a-z 0-9 _ -", minPrefix, fleet.MaxDeviceID).On("prefix")
	}
	for field, text := range map[string]string{"cohort": t.Cohort, "site": t.Site, "model": t.Model} {
		if err := checkText(field, text); err != nil {
			return t, "", err
		}
	}
	raw, err := random(tokenEntropy)
	if err != nil {
		return t, "", err
	}
	secret := fleetTokenPrefix + tokenEncoding.EncodeToString(raw)
	hash := hashToken(secret)
	t.ID, t.Used, t.RevokedAt = hash[:12], 0, time.Time{}
	t.CreatedAt = r.deps.Clock().UTC()
	t.ExpiresAt = t.CreatedAt.Add(life)
	if err := writeJSON(ctx, r, bus.BucketIdentity, fleetTokenKey+hash, t); err != nil {
		return t, "", err
	}
	r.deps.Log.Info("fleet token made", "token", t.ID, "prefix", t.Prefix, "most", t.Most, "actor", t.CreatedBy)
	return t, secret, nil
}

// FleetTokens lists the fleet tokens that are or were good, newest first.
func (r *Registry) FleetTokens(ctx context.Context) ([]FleetToken, error) {
	list, err := listJSON[FleetToken](ctx, r, bus.BucketIdentity, fleetTokenKey+"*")
	slices.SortFunc(list, func(a, b FleetToken) int { return b.CreatedAt.Compare(a.CreatedAt) })
	return list, err
}

// RevokeFleetToken ends a fleet token. Devices that it enrolled stay. Code:
// not_found.
func (r *Registry) RevokeFleetToken(ctx context.Context, id string) (FleetToken, error) {
	kv, err := r.deps.Bus.Bucket(ctx, bus.BucketIdentity)
	if err != nil {
		return FleetToken{}, err
	}
	keys, err := kv.ListKeysFiltered(ctx, fleetTokenKey+"*")
	if err != nil {
		return FleetToken{}, err
	}
	defer keys.Stop() //nolint:errcheck // nothing can be done about it
	for key := range keys.Keys() {
		if strings.HasPrefix(key, fleetTokenKey+id) && len(id) == 12 {
			return changeJSON(ctx, r, bus.BucketIdentity, key, func(t *FleetToken) error {
				if t.RevokedAt.IsZero() {
					t.RevokedAt = r.deps.Clock().UTC()
				}
				return nil
			})
		}
	}
	return FleetToken{}, fleet.Errorf(fleet.CodeNotFound, "there is no fleet token %s", id)
}

// spend takes one use of a fleet token for an id and returns what the device
// is enrolled as. Codes: unauthenticated, forbidden, conflict, too_many.
func (r *Registry) spend(ctx context.Context, secret, id string) (FleetToken, error) {
	unknown := fleet.Errorf(fleet.CodeUnauthenticated, "the fleet token is unknown: ask for a new one")
	text, ok := strings.CutPrefix(secret, fleetTokenPrefix)
	if !ok || len(text) > 64 {
		return FleetToken{}, unknown
	}
	if err := fleet.CheckDeviceID(id); err != nil {
		return FleetToken{}, fleet.Errorf(fleet.CodeInvalid, "a fleet token needs the device's id: %w", err).On("device")
	}
	t, err := changeJSON(ctx, r, bus.BucketIdentity, fleetTokenKey+hashToken(secret), func(t *FleetToken) error {
		switch {
		case !t.RevokedAt.IsZero():
			return fleet.Errorf(fleet.CodeForbidden, "the fleet token was revoked: ask for a new one")
		case !r.deps.Clock().Before(t.ExpiresAt):
			return fleet.Errorf(fleet.CodeForbidden, "the fleet token has expired: ask for a new one")
		case !strings.HasPrefix(id, t.Prefix):
			return fleet.Errorf(fleet.CodeForbidden, "the fleet token enrols ids that begin with %s, not %s", t.Prefix, id).On("device")
		case t.Used >= t.Most:
			return fleet.Errorf(fleet.CodeForbidden, "the fleet token has enrolled %d devices, its limit: ask for a new one", t.Most)
		}
		t.Used++
		return nil
	})
	if fleet.CodeOf(err) == fleet.CodeNotFound {
		return t, unknown
	}
	return t, err
}
