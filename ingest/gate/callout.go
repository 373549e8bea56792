package gate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

const (
	calloutSubject = "$SYS.REQ.USER.AUTH"
	xkeyHeader     = "Nats-Server-Xkey"
	readWait       = 2 * time.Second
)

// reason says why a connection was refused. Reasons are metric labels.
type reason string

const (
	noCertificate reason = "no_certificate"
	foreign       reason = "foreign"     // signed by another authority
	expired       reason = "expired"     // certificate ended
	unknown       reason = "unknown"     // no such device, or no device's certificate
	clientID      reason = "client_id"   // MQTT client id is not the device's id
	notActive     reason = "not_active"  // enrolled, but without certificate
	revoked       reason = "revoked"     //
	retired       reason = "retired"     //
	superseded    reason = "superseded"  // not the device's newest certificate
	quarantined   reason = "quarantined" //
	handshake     reason = "handshake"   // TLS failed otherwise
	throttled     reason = "throttled"   // refused too often from there
	flooding      reason = "flooding"    // sent too much, or was cloned: cools down
	clone         reason = "clone"       // one identity on two live connections
	tooMany       reason = "too_many"    // connections of the device or from the address
	unavailable   reason = "unavailable" // the gate could not find out
)

var reasons = []reason{
	noCertificate, foreign, expired, unknown, clientID, notActive, revoked, retired, superseded, quarantined, handshake, throttled, flooding, clone, tooMany, unavailable,
}

// verdict is the gate's answer to one request.
type verdict struct {
	refused    reason // empty: admitted
	detail     string
	device     string // known from the certificate, or empty
	restricted bool
	token      string // user JWT
}

// answer handles one authorization request.
func (g *Gate) answer(ctx context.Context, msg *nats.Msg) {
	start := time.Now()
	serverKey := msg.Header.Get(xkeyHeader)
	req, err := g.request(msg.Data, serverKey)
	if err != nil {
		// Nothing in it can be trusted: leave it, and the broker refuses.
		g.metrics.refuse(unavailable)
		g.deps.Log.Error("authorization request can't be read", "error", err)
		return
	}
	c := connection{
		Connection: fleet.Connection{
			ServerID: req.Server.ID, CID: req.ClientInformation.ID, Protocol: bus.Protocol(req.ClientInformation.Type),
			Address: req.ClientInformation.Host, StartedAt: g.deps.Clock().UTC(),
		},
		since: start,
	}
	ctx, cancel := context.WithTimeout(ctx, readWait)
	defer cancel()
	v := g.decide(ctx, req, &c)
	if err := g.respond(msg, req, serverKey, v); err != nil {
		g.deps.Log.Error("authorization request was not answered", "device", v.device, "error", err)
	}
	if v.refused != "" {
		g.table.drop(c.key())
		g.limits.failed(v, c)
		g.refuse(v, c)
	} else {
		others := g.others(c)
		g.table.answered(c.key(), v.restricted)
		g.metrics.admit(c.Protocol)
		g.oust(ctx, c, others)
	}
	g.metrics.answered(time.Since(start))
}

func (g *Gate) request(data []byte, serverKey string) (*jwt.AuthorizationRequestClaims, error) {
	if serverKey == "" {
		return nil, errors.New("it is not sealed: configure xkey in the broker's auth_callout")
	}
	plain, err := g.curve.Open(data, serverKey)
	if err != nil {
		return nil, fmt.Errorf("open seal: %w", err)
	}
	req, err := jwt.DecodeAuthorizationRequestClaims(string(plain))
	if err != nil {
		return nil, fmt.Errorf("decode request: %w", err)
	}
	return req, nil
}

func (g *Gate) respond(msg *nats.Msg, req *jwt.AuthorizationRequestClaims, serverKey string, v verdict) error {
	answer := jwt.NewAuthorizationResponseClaims(req.UserNkey)
	answer.Audience = req.Server.ID
	if v.refused != "" {
		answer.Error = string(v.refused)
	} else {
		answer.Jwt = v.token
	}
	token, err := answer.Encode(g.issuer)
	if err != nil {
		return fmt.Errorf("sign answer: %w", err)
	}
	sealed, err := g.curve.Seal([]byte(token), serverKey)
	if err != nil {
		return fmt.Errorf("seal answer: %w", err)
	}
	if err := msg.Respond(sealed); err != nil {
		return fmt.Errorf("send answer: %w", err)
	}
	return nil
}

// decide finds out who connects and what they may do. From the moment that
// the device is known, the connection is in the table.
func (g *Gate) decide(ctx context.Context, req *jwt.AuthorizationRequestClaims, c *connection) verdict {
	claim, v := g.claim(ctx, req)
	if v.refused != "" {
		return v
	}
	id := claim.Device
	c.device, c.serial = id, claim.Serial
	if c.Protocol == "mqtt" && req.ClientInformation.MQTT != id {
		v.refused, v.detail = clientID, "the MQTT client id must be the device id"
		return v
	}
	if v.refused = g.limits.before(id, c.Address); v.refused != "" {
		return v
	}
	g.table.begin(*c) // before the states are read: see the package comment

	device, err := g.deps.Device(ctx, id)
	if err != nil && fleet.CodeOf(err) != fleet.CodeNotFound {
		return g.unavailable(v, err)
	}
	if v.refused = standing(device, err == nil, c.serial); v.refused != "" {
		return v
	}
	q, revision, err := g.quarantine(ctx, id)
	if err != nil {
		return g.unavailable(v, err)
	}
	if q.ID != "" && (!q.Active() || q.Level == fleet.Observe) {
		// What it says from now on must come behind the end of its fence.
		if err := g.enforcer.journal.Await(ctx, revision); err != nil {
			return g.unavailable(v, err)
		}
	}
	if q.Active() {
		switch q.Level {
		case fleet.Observe:
		case fleet.Restrict:
			v.restricted = true
		default:
			v.refused = quarantined
			return v
		}
	}
	if v.refused = g.room(*c, g.others(*c)); v.refused != "" {
		return v
	}
	children := g.speaksFor(id)
	if v.token, err = g.grant(req.UserNkey, device, claim.End, v.restricted, children); err != nil {
		return g.unavailable(v, err)
	}
	g.table.granted(c.key(), grantOf(children))
	if device.Next != nil && device.Next.Serial == c.serial {
		if err := g.deps.Registry.Promote(ctx, id, c.serial); err != nil {
			return g.unavailable(v, err)
		}
	}
	return v
}

// standing says why the registry does not let a certificate in, "" when it does.
func standing(device fleet.Device, known bool, serial string) reason {
	switch {
	case !known:
		return unknown
	case device.State == fleet.Revoked:
		return revoked
	case device.State == fleet.Retired:
		return retired
	case device.State != fleet.Active:
		return notActive
	case device.CertificateSerial != serial && (device.Next == nil || device.Next.Serial != serial):
		return superseded
	}
	return ""
}

// quarantine reads the device's entry from the bucket's leader.
func (g *Gate) quarantine(ctx context.Context, device string) (fleet.Quarantine, uint64, error) {
	entry, err := g.quarantines.Get(ctx, device)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return fleet.Quarantine{}, 0, nil
	}
	if err != nil {
		return fleet.Quarantine{}, 0, fmt.Errorf("read quarantine of %s: %w", device, err)
	}
	var q fleet.Quarantine
	if err := json.Unmarshal(entry.Value(), &q); err != nil {
		return fleet.Quarantine{}, 0, fmt.Errorf("decode quarantine of %s: %w", device, err)
	}
	return q, entry.Revision(), nil
}

// unavailable fails closed and marks the gate unhealthy for the next tick.
func (g *Gate) unavailable(v verdict, err error) verdict {
	g.healthy.Store(false)
	g.deps.Log.Error("authorization failed, refusing", "device", v.device, "error", err)
	v.refused, v.token = unavailable, ""
	return v
}
