package identity

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"cordon/internal/fleet"
)

const (
	tokenPrefix  = "cordon_enroll_"
	tokenEntropy = 20 // random bytes
	maxText      = 128
	maxTags      = 32
	casAttempts  = 16
	maxPublished = 10_000
)

var tokenEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Enrolment asks for a place in the fleet. Empty attributes of a device that
// is enrolled again keep their value.
type Enrolment struct {
	ID, Cohort, Site, Model, Firmware, Owner, TimeZone string

	Tags      []string
	Historic  bool
	Actor     string        // who enrols it
	TokenLife time.Duration // zero: Config.TokenLife
	Reissue   bool          // a new token for a device that has a certificate, or whose was revoked

	Credential fleet.Credential // empty: by certificate
	Maker      string           // with ByMaker: whose certificate it will show
	Gateway    string           // with ByGateway: the device that speaks for it
	HardwareID string           // such as a serial number; two devices can't have the same
}

// Enroll enters a device and returns its one-time token, of which only a hash
// is kept; with ByToken, its token credential; with ByMaker or ByGateway,
// nothing. A device that has not redeemed its token gets a new one in place of
// the old. Codes: invalid, conflict (it has a certificate and Reissue is not
// set, or it was retired), forbidden (its hardware is quarantined), too_many.
func (r *Registry) Enroll(ctx context.Context, e Enrolment) (fleet.Device, string, error) {
	if err := checkEnrolment(e); err != nil {
		return fleet.Device{}, "", err
	}
	if err := r.checkCredential(ctx, &e); err != nil {
		return fleet.Device{}, "", err
	}
	make := newToken
	if e.Credential == fleet.ByToken {
		make = newCredential
	}
	token, hash, err := make(e.ID)
	if err != nil {
		return fleet.Device{}, "", err
	}
	life := e.TokenLife
	if life <= 0 {
		life = r.cfg.TokenLife
	}
	now := r.deps.Clock().UTC()
	device, err := r.modify(ctx, e.ID, true, func(d *fleet.Device) error {
		if err := r.admit(d, e); err != nil {
			return err
		}
		merge(d, e)
		if d.EnrolledAt.IsZero() {
			d.EnrolledAt, d.EnrolledBy = now, e.Actor
		}
		d.Credential, d.Maker, d.Gateway = e.Credential, e.Maker, e.Gateway
		switch e.Credential {
		case fleet.ByToken:
			r.credential(d, hash)
		case fleet.ByMaker:
		case fleet.ByGateway:
			d.State = fleet.Active
		default:
			d.TokenHash, d.TokenExpiresAt = hash, now.Add(life)
		}
		return nil
	})
	if err == nil {
		err = r.remember(ctx, e.ID, "", e.HardwareID)
	}
	if err != nil {
		return fleet.Device{}, "", err
	}
	if e.Credential == fleet.ByMaker || e.Credential == fleet.ByGateway {
		token = ""
	}
	r.deps.Log.Info("device enrolled", "device", e.ID, "actor", e.Actor, "reissue", e.Reissue)
	return device, token, nil
}

// admit decides whether the device may be enrolled from the state that it is in.
func (r *Registry) admit(d *fleet.Device, e Enrolment) error {
	switch d.State {
	case "":
		r.mu.RLock()
		full := len(r.devices) >= r.cfg.MaxDevices
		r.mu.RUnlock()
		if full {
			return fleet.Errorf(fleet.CodeTooMany, "the registry holds %d devices, its limit: retire some or raise the limit", r.cfg.MaxDevices)
		}
		d.State = fleet.Enrolled
	case fleet.Enrolled:
	case fleet.Active:
		if d.Credential == fleet.ByGateway {
			return fleet.Errorf(fleet.CodeConflict, "device %s is behind gateway %s already", e.ID, d.Gateway).On("id")
		}
		if !e.Reissue {
			return fleet.Errorf(fleet.CodeConflict, "device %s has a certificate: ask for a re-issue to replace it", e.ID).On("id")
		}
		if e.Credential != d.Credential && (e.Credential != "" || d.Credential != fleet.ByCertificate) {
			return fleet.Errorf(fleet.CodeConflict, "device %s proves itself by %s: retire it and enrol it under a new id to change that", e.ID, d.Credential).On("id")
		}
	case fleet.Revoked:
		if !e.Reissue {
			return fleet.Errorf(fleet.CodeConflict, "device %s was revoked: ask for a re-issue to let it back in", e.ID).On("id")
		}
		d.State = fleet.Enrolled
		d.CertificateSerial, d.KeyHash, d.Next = "", "", nil
	default:
		return fleet.Errorf(fleet.CodeConflict, "device %s is %s: enrol the hardware under a new id", e.ID, d.State).On("id")
	}
	return nil
}

func merge(d *fleet.Device, e Enrolment) {
	for _, part := range []struct {
		to   *string
		from string
	}{
		{&d.Cohort, e.Cohort},
		{&d.Site, e.Site},
		{&d.Model, e.Model},
		{&d.Firmware, e.Firmware},
		{&d.Owner, e.Owner},
		{&d.TimeZone, e.TimeZone},
	} {
		if part.from != "" {
			*part.to = part.from
		}
	}
	if d.Cohort == "" {
		d.Cohort = "default"
	}
	if e.HardwareID != "" {
		d.HardwareID = e.HardwareID
	}
	if e.Tags != nil {
		d.Tags = e.Tags
	}
	d.Historic = d.Historic || e.Historic
}

func checkEnrolment(e Enrolment) error {
	if err := fleet.CheckDeviceID(e.ID); err != nil {
		return fleet.Errorf(fleet.CodeInvalid, "%w", err).On("id")
	}
	for field, text := range map[string]string{
		"cohort": e.Cohort, "site": e.Site, "model": e.Model, "firmware": e.Firmware, "owner": e.Owner, "time_zone": e.TimeZone,
		"hardware_id": e.HardwareID,
	} {
		if err := checkText(field, text); err != nil {
			return err
		}
	}
	if len(e.Tags) > maxTags {
		return fleet.Errorf(fleet.CodeInvalid, "%d tags, the limit is %d", len(e.Tags), maxTags).On("tags")
	}
	for _, tag := range e.Tags {
		if tag == "" {
			return fleet.Errorf(fleet.CodeInvalid, "a tag is empty").On("tags")
		}
		if err := checkText("tags", tag); err != nil {
			return err
		}
	}
	if _, err := time.LoadLocation(e.TimeZone); err != nil || e.TimeZone == "Local" {
		return fleet.Errorf(fleet.CodeInvalid, "time zone %q is unknown: use an IANA name such as Asia/Seoul", e.TimeZone).On("time_zone")
	}
	return nil
}

func checkText(field, text string) error {
	if len(text) > maxText {
		return fleet.Errorf(fleet.CodeInvalid, "%s has %d bytes, the limit is %d", field, len(text), maxText).On(field)
	}
	if strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		return fleet.Errorf(fleet.CodeInvalid, "%s holds a control character", field).On(field)
	}
	return nil
}

// Redemption is what a device shows to get its first certificate.
type Redemption struct {
	Token      string // one-time or fleet token
	CSR        []byte // PEM
	Device     string // the id that it wants, with a fleet token
	HardwareID string // what it says of itself; may be empty
}

// Redeem is Admit with a one-time token.
func (r *Registry) Redeem(ctx context.Context, token string, csrPEM []byte) (fleet.Device, []byte, error) {
	return r.Admit(ctx, Redemption{Token: token, CSR: csrPEM})
}

// Admit turns a token and a certificate request into a certificate. Codes:
// unauthenticated (no such token, or used), forbidden (expired, device revoked
// or retired, key or hardware of a quarantined device), conflict (key,
// hardware or id of another device), invalid (the request).
func (r *Registry) Admit(ctx context.Context, q Redemption) (fleet.Device, []byte, error) {
	key, err := requestHash(q.CSR)
	if err != nil {
		return fleet.Device{}, nil, err
	}
	if err := checkText("hardware_id", q.HardwareID); err != nil {
		return fleet.Device{}, nil, err
	}
	if secret := strings.TrimSpace(q.Token); strings.HasPrefix(secret, fleetTokenPrefix) {
		return r.admitByFleetToken(ctx, secret, key, q)
	}
	unknown := fleet.Errorf(fleet.CodeUnauthenticated, "the enrolment token is unknown or was used: ask for a new one")
	id, hash, ok := parseToken(q.Token)
	if !ok {
		return fleet.Device{}, nil, unknown
	}
	check := func(d *fleet.Device) error {
		if d.TokenHash == "" || subtle.ConstantTimeCompare([]byte(d.TokenHash), []byte(hash)) != 1 {
			return unknown
		}
		if d.State != fleet.Enrolled && d.State != fleet.Active {
			return fleet.Errorf(fleet.CodeForbidden, "device %s is %s", id, d.State)
		}
		if !r.deps.Clock().Before(d.TokenExpiresAt) {
			return fleet.Errorf(fleet.CodeForbidden, "the enrolment token of device %s has expired: ask for a new one", id)
		}
		return nil
	}
	return r.certify(ctx, id, key, q, false, check)
}

func (r *Registry) admitByFleetToken(ctx context.Context, secret, key string, q Redemption) (fleet.Device, []byte, error) {
	if err := r.free(ctx, q.Device); err != nil {
		return fleet.Device{}, nil, err
	}
	if err := r.barred(ctx, q.Device, key, q.HardwareID); err != nil {
		return fleet.Device{}, nil, err
	}
	t, err := r.spend(ctx, secret, q.Device)
	if err != nil {
		return fleet.Device{}, nil, err
	}
	e := Enrolment{ID: q.Device, Cohort: t.Cohort, Site: t.Site, Model: t.Model, Actor: "fleet-token:" + t.ID}
	return r.certify(ctx, q.Device, key, q, true, func(d *fleet.Device) error {
		if err := fleetMay(*d); err != nil {
			return err
		}
		if err := r.admit(d, e); err != nil {
			return err
		}
		if d.EnrolledAt.IsZero() {
			merge(d, e)
			d.EnrolledAt, d.EnrolledBy = r.deps.Clock().UTC(), e.Actor
		}
		return nil
	})
}

// free refuses an id that a fleet token can't enrol before a use of it is
// spent.
func (r *Registry) free(ctx context.Context, id string) error {
	device, err := r.Lookup(ctx, id)
	if code := fleet.CodeOf(err); code == fleet.CodeNotFound || code == fleet.CodeInvalid {
		return nil // what is wrong with the id, spend says
	}
	if err != nil {
		return err
	}
	return fleetMay(device)
}

// fleetMay: a fleet token takes over nobody's identity.
func fleetMay(d fleet.Device) error {
	if d.State == "" || d.State == fleet.Enrolled && (d.Credential == "" || d.Credential == fleet.ByCertificate) {
		return nil
	}
	return fleet.Errorf(fleet.CodeConflict, "device %s is in the fleet already: it needs a one-time token of its own", d.ID).On("device")
}

// certify gives a device its first certificate once check agrees.
func (r *Registry) certify(ctx context.Context, id, key string, q Redemption, create bool, check func(*fleet.Device) error) (fleet.Device, []byte, error) {
	if !create {
		// Who has no token learns nothing about keys.
		known, err := r.Lookup(ctx, id)
		if fleet.CodeOf(err) == fleet.CodeNotFound {
			return fleet.Device{}, nil, fleet.Errorf(fleet.CodeUnauthenticated, "the enrolment token is unknown or was used: ask for a new one")
		}
		if err == nil {
			err = check(&known)
		}
		if err == nil && known.HardwareID != "" && q.HardwareID != "" && known.HardwareID != q.HardwareID {
			err = fleet.Errorf(fleet.CodeForbidden, "device %s was enrolled with another hardware id", id).On("hardware_id")
		}
		if err == nil {
			err = r.barred(ctx, id, key, q.HardwareID)
		}
		if err != nil {
			return fleet.Device{}, nil, err
		}
	}
	if err := r.remember(ctx, id, key, q.HardwareID); err != nil {
		return fleet.Device{}, nil, err
	}
	var certPEM []byte
	device, err := r.modify(ctx, id, create, func(d *fleet.Device) error {
		if err := check(d); err != nil {
			return err
		}
		signed, leaf, err := r.deps.CA.SignDevice(q.CSR, id, r.cfg.CertificateLife)
		if err != nil {
			return err
		}
		certPEM = signed
		d.State, d.Credential, d.Next, d.RotateAt = fleet.Active, fleet.ByCertificate, nil, time.Time{}
		d.CertificateSerial, d.CertificateNotBefore, d.CertificateNotAfter = Serial(leaf), leaf.NotBefore, leaf.NotAfter
		d.KeyHash, d.Authority = key, r.deps.CA.authorityOf(leaf)
		if q.HardwareID != "" {
			d.HardwareID = q.HardwareID
		}
		d.TokenHash, d.TokenExpiresAt = "", time.Time{}
		return nil
	})
	if err != nil {
		return fleet.Device{}, nil, err
	}
	r.deps.Log.Info("device has its certificate", "device", id, "serial", device.CertificateSerial, "until", device.CertificateNotAfter)
	return device, certPEM, nil
}

// Revoke withdraws a device's certificate: the gate cuts it at once.
func (r *Registry) Revoke(ctx context.Context, id, actor, reason string) error {
	return r.end(ctx, id, fleet.Revoked, actor, reason)
}

// Retire ends a device's life for good; its id is not used again.
func (r *Registry) Retire(ctx context.Context, id, actor, reason string) error {
	return r.end(ctx, id, fleet.Retired, actor, reason)
}

func (r *Registry) end(ctx context.Context, id string, state fleet.DeviceState, actor, reason string) error {
	_, err := r.modify(ctx, id, false, func(d *fleet.Device) error {
		if d.State == state || d.State == fleet.Retired {
			return fleet.Errorf(fleet.CodeConflict, "device %s is already %s", id, d.State)
		}
		d.State, d.StateAt, d.StateBy, d.StateReason = state, r.deps.Clock().UTC(), actor, reason
		d.TokenHash, d.TokenExpiresAt, d.Next, d.RotateAt = "", time.Time{}, nil, time.Time{}
		return nil
	})
	if err == nil {
		r.deps.Log.Info("device "+string(state), "device", id, "actor", actor, "reason", reason)
	}
	return err
}

// Update changes a device by compare-and-set; change may run several times.
// Codes: not_found, conflict, and what change returns.
func (r *Registry) Update(ctx context.Context, id string, change func(*fleet.Device) error) error {
	_, err := r.modify(ctx, id, false, change)
	return err
}

// Lookup reads a device from the bucket's leader, not from memory. Code:
// not_found.
func (r *Registry) Lookup(ctx context.Context, id string) (fleet.Device, error) {
	kv, err := r.bucket(ctx)
	if err != nil {
		return fleet.Device{}, err
	}
	device, _, err := readDevice(ctx, kv, id)
	return device, err
}

func readDevice(ctx context.Context, kv jetstream.KeyValue, id string) (fleet.Device, uint64, error) {
	if err := fleet.CheckDeviceID(id); err != nil {
		return fleet.Device{}, 0, fleet.Errorf(fleet.CodeInvalid, "%w", err).On("id")
	}
	entry, err := kv.Get(ctx, id)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return fleet.Device{}, 0, fleet.Errorf(fleet.CodeNotFound, "no device %s in the registry", id)
	}
	if err != nil {
		return fleet.Device{}, 0, fmt.Errorf("read device %s: %w", id, err)
	}
	var device fleet.Device
	if err := json.Unmarshal(entry.Value(), &device); err != nil {
		return fleet.Device{}, 0, fmt.Errorf("decode device %s: %w", id, err)
	}
	return device, entry.Revision(), nil
}

// modify reads, changes and writes a device until no other writer was faster,
// then publishes the change.
func (r *Registry) modify(ctx context.Context, id string, create bool, change func(*fleet.Device) error) (fleet.Device, error) {
	kv, err := r.bucket(ctx)
	if err != nil {
		return fleet.Device{}, err
	}
	for range casAttempts {
		device, revision, err := readDevice(ctx, kv, id)
		if create && fleet.CodeOf(err) == fleet.CodeNotFound {
			device, revision, err = fleet.Device{ID: id}, 0, nil
		}
		if err != nil {
			return fleet.Device{}, err
		}
		if err := change(&device); err != nil {
			return fleet.Device{}, err
		}
		device.ID = id
		data, err := json.Marshal(device)
		if err != nil {
			return fleet.Device{}, fmt.Errorf("encode device %s: %w", id, err)
		}
		if revision == 0 {
			revision, err = kv.Create(ctx, id, data)
		} else {
			revision, err = kv.Update(ctx, id, data, revision)
		}
		if errors.Is(err, jetstream.ErrKeyExists) || errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
			continue
		}
		if err != nil {
			return fleet.Device{}, fmt.Errorf("write device %s: %w", id, err)
		}
		r.put(device, revision)
		r.announce(ctx, device, revision)
		return device, nil
	}
	return fleet.Device{}, fleet.Errorf(fleet.CodeConflict, "device %s is being changed by others: try again", id)
}

// announce puts a written change on the log, so that it is there before the
// device's first message. When that fails the watch of the bucket does it, now
// or at the next start.
func (r *Registry) announce(ctx context.Context, device fleet.Device, revision uint64) {
	subject, data, err := controlRecord(device)
	if err == nil {
		_, err = r.deps.Bus.Fleet.Publish(ctx, subject, data, jetstream.WithMsgID(r.journal.MsgID(revision)))
	}
	if err != nil {
		r.deps.Log.Warn("device change is not on the log yet", "device", device.ID, "error", err)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.published) >= maxPublished { // nobody runs the watch that empties it
		clear(r.published)
	}
	r.published[revision] = true
}

// newToken makes a token that carries the device's id, so that redeeming it
// needs one read, and enough random bytes that nobody guesses it.
func newToken(id string) (token, hash string, err error) {
	raw, err := random(tokenEntropy)
	if err != nil {
		return "", "", err
	}
	token = tokenPrefix + tokenEncoding.EncodeToString(append(raw, id...))
	return token, hashToken(token), nil
}

func hashToken(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

func parseToken(token string) (id, hash string, ok bool) {
	text, ok := strings.CutPrefix(strings.TrimSpace(token), tokenPrefix)
	if !ok || len(text) > 256 {
		return "", "", false
	}
	raw, err := tokenEncoding.DecodeString(text)
	if err != nil || len(raw) <= tokenEntropy {
		return "", "", false
	}
	id = string(raw[tokenEntropy:])
	return id, hashToken(tokenPrefix + text), fleet.CheckDeviceID(id) == nil
}
