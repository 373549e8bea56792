package gate

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/nats-io/jwt/v2"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

// permissions are all that a device may say and hear; a gateway also speaks
// for its children. MQTT clients that subscribe a/# need a and a.> both.
func permissions(device string, restricted bool, children []string) jwt.Permissions {
	var p jwt.Permissions
	publish := func(prefix string) { p.Pub.Allow.Add(prefix + "." + device) }
	subscribe := func(prefix string) {
		p.Sub.Allow.Add(prefix+"."+device, prefix+"."+device+".>")
	}
	publish(bus.SubjectQuarantine)
	subscribe(bus.SubjectQuarantine)
	if restricted {
		return p
	}
	publish(bus.SubjectTelemetry)
	publish(bus.SubjectAudit)
	publish(bus.SubjectPosture)
	publish(bus.SubjectIdentity)
	subscribe(bus.SubjectIdentity)
	for _, child := range children {
		p.Pub.Allow.Add(bus.SubjectTelemetry+"."+device+"."+child, bus.SubjectAudit+"."+device+"."+child)
	}
	subscribe(bus.SubjectReceipt)
	subscribe(bus.SubjectCommand)
	p.Sub.Allow.Add(bus.Inbox(device) + ".>")
	return p
}

// grant signs the user JWT of an admitted connection.
func (g *Gate) grant(userKey string, device fleet.Device, end time.Time, restricted bool, children []string) (string, error) {
	claims := jwt.NewUserClaims(userKey)
	claims.Name = bus.User(device.ID, restricted)
	claims.Audience = bus.AccountDevices
	claims.Permissions = permissions(device.ID, restricted, children)
	claims.AllowedConnectionTypes.Add(jwt.ConnectionTypeStandard, jwt.ConnectionTypeMqtt, jwt.ConnectionTypeWebsocket, jwt.ConnectionTypeMqttWS)
	// A little less than the full life, differently for each, so that a fleet
	// that came at once does not come again at once.
	life := g.cfg.PermissionLife - rand.N(g.cfg.PermissionLife/10+1) //nolint:gosec // no secret, only spread
	if lived := g.deps.Clock().Add(life); lived.Before(end) {
		end = lived
	}
	claims.Expires = end.Unix()
	token, err := claims.Encode(g.issuer)
	if err != nil {
		return "", fmt.Errorf("sign permissions of %s: %w", device.ID, err)
	}
	return token, nil
}
