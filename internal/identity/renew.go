package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

const (
	renewEvery    = 10 * time.Second // between two renewals that did not connect
	renewShare    = 3                // a certificate is renewed in the last third of its life
	renewTimeout  = 10 * time.Second
	renewParallel = 16
)

// errSame says that there is nothing to change.
var errSame = errors.New("nothing to change")

// Due says why a device should renew its certificate now, "" when it need not.
func (r *Registry) Due(d fleet.Device) string {
	switch {
	case d.State != fleet.Active || d.Credential != "" && d.Credential != fleet.ByCertificate:
		return ""
	case !d.RotateAt.IsZero():
		return "an operator asked for a new key"
	case d.Authority != r.deps.CA.newest().id() && len(r.deps.CA.trusted()) > 1:
		return "a new authority signs devices"
	case d.CertificateNotAfter.Sub(r.deps.Clock()) < d.CertificateNotAfter.Sub(d.CertificateNotBefore)/renewShare:
		return "it ends on " + d.CertificateNotAfter.Format(time.DateOnly)
	}
	return ""
}

// Renew certifies a new key of a device that has proven who it is. The old
// certificate stays good until the new one connects. Codes: conflict (not
// due), forbidden, too_many, invalid.
func (r *Registry) Renew(ctx context.Context, id string, csrPEM []byte) (fleet.Device, []byte, error) {
	key, err := requestHash(csrPEM)
	if err != nil {
		return fleet.Device{}, nil, err
	}
	if err := r.barred(ctx, id, key, ""); err != nil {
		return fleet.Device{}, nil, err
	}
	if err := r.remember(ctx, id, key, ""); err != nil {
		return fleet.Device{}, nil, err
	}
	var certPEM []byte
	device, err := r.modify(ctx, id, false, func(d *fleet.Device) error {
		if d.State != fleet.Active || d.Credential != "" && d.Credential != fleet.ByCertificate {
			return fleet.Errorf(fleet.CodeForbidden, "device %s has no certificate of Cordon's to renew", id)
		}
		if r.Due(*d) == "" {
			return fleet.Errorf(fleet.CodeConflict, "the certificate of device %s is good until %s: too early to renew it", id, d.CertificateNotAfter.Format(time.DateOnly))
		}
		if d.Next != nil && r.deps.Clock().Sub(d.Next.NotBefore.Add(backdate)) < renewEvery {
			return fleet.Errorf(fleet.CodeTooMany, "device %s renewed a moment ago: wait %s", id, renewEvery)
		}
		signed, leaf, err := r.deps.CA.SignDevice(csrPEM, id, r.cfg.CertificateLife)
		if err != nil {
			return err
		}
		certPEM = signed
		d.Next = &fleet.NextCredential{
			Serial: Serial(leaf), KeyHash: key, Authority: r.deps.CA.authorityOf(leaf), NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter,
		}
		return nil
	})
	if err != nil {
		return fleet.Device{}, nil, err
	}
	r.deps.Log.Info("certificate renewed", "device", id, "serial", device.Next.Serial, "until", device.Next.NotAfter)
	return device, certPEM, nil
}

// Promote makes the next credential of a device the current one, because it
// has connected; connections on the old one are then cut by the gate.
func (r *Registry) Promote(ctx context.Context, id, serial string) error {
	_, err := r.modify(ctx, id, false, func(d *fleet.Device) error {
		n := d.Next
		if n == nil || n.Serial != serial || d.State != fleet.Active {
			return errSame
		}
		d.CertificateSerial, d.CertificateNotBefore, d.CertificateNotAfter = n.Serial, n.NotBefore, n.NotAfter
		d.KeyHash, d.Authority, d.Next, d.RotateAt = n.KeyHash, n.Authority, nil, time.Time{}
		return nil
	})
	if errors.Is(err, errSame) {
		return nil
	}
	if err == nil {
		r.deps.Log.Info("new credential connected, old one superseded", "device", id, "serial", serial)
	}
	return err
}

// Rotate asks a device for a new key. A device that is connected does it at
// once, one that is not when it comes back; of a maker's device the next key
// that connects is taken. Codes: not_found, conflict.
func (r *Registry) Rotate(ctx context.Context, id, actor, reason string) (fleet.Device, error) {
	device, err := r.modify(ctx, id, false, func(d *fleet.Device) error {
		switch {
		case d.State != fleet.Active:
			return fleet.Errorf(fleet.CodeConflict, "device %s is %s", id, d.State)
		case d.Credential == fleet.ByToken:
			return fleet.Errorf(fleet.CodeConflict, "device %s has a token credential: issue a new one and put it on the device", id)
		case d.Credential == fleet.ByGateway:
			return fleet.Errorf(fleet.CodeConflict, "device %s has no key: rotate its gateway %s", id, d.Gateway)
		}
		d.RotateAt = r.deps.Clock().UTC()
		return nil
	})
	if err != nil {
		return device, err
	}
	r.deps.Log.Info("device is asked for a new key", "device", id, "actor", actor, "reason", reason)
	// Nobody but Cordon may publish here; the device asks what there is to do.
	if err := r.deps.Bus.Devices.Publish(bus.SubjectIdentity+"."+id+".rotate", nil); err != nil {
		r.deps.Log.Warn("device is told at its next question", "device", id, "error", err)
	}
	return device, nil
}

// Renewal is what a device asks on fleet.identity.<device>: with a certificate
// request, for its next certificate; without, whether it is due.
type Renewal struct {
	CSR string `json:"csr,omitempty"` // PEM
}

// Renewed is the answer: to the reply subject under _INBOX.<device>, or
// without one on fleet.identity.<device>.answer.
type Renewed struct {
	Device      string     `json:"device"`
	Due         string     `json:"due,omitempty"` // why it should renew; empty: it need not
	NotAfter    time.Time  `json:"not_after"`     // of its certificate
	CA          string     `json:"ca"`            // PEM: the authorities to trust
	Certificate string     `json:"certificate,omitempty"`
	Code        fleet.Code `json:"code,omitempty"` // of a refusal
	Error       string     `json:"error,omitempty"`
}

// answerRenewals serves devices over the connections on which the broker has
// let them in: that a request is of the device in its subject is the broker's
// guarantee.
func (r *Registry) answerRenewals(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	slots := make(chan struct{}, renewParallel)
	sub, err := r.deps.Bus.Devices.QueueSubscribe(bus.SubjectIdentity+".*", "identity", func(msg *nats.Msg) {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		go func() {
			defer func() { <-slots }()
			r.answerRenewal(ctx, msg)
		}()
	})
	if err != nil {
		return fmt.Errorf("subscribe renewals: %w", err)
	}
	defer sub.Unsubscribe() //nolint:errcheck // the connection is gone then
	<-ctx.Done()
	for range renewParallel { // until the running ones have ended
		slots <- struct{}{}
	}
	return nil
}

func (r *Registry) answerRenewal(ctx context.Context, msg *nats.Msg) {
	id := bus.Device(msg.Subject)
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	answer := r.renewal(ctx, id, msg.Data)
	raw, err := json.Marshal(answer)
	if err == nil {
		err = r.deps.Bus.Devices.Publish(replySubject(id, msg.Reply), raw)
	}
	if err != nil {
		r.deps.Log.Warn("renewal was not answered", "device", id, "error", err)
	}
}

// replySubject never lets a device choose a subject that is not its own.
func replySubject(id, reply string) string {
	if rest, ok := strings.CutPrefix(reply, bus.Inbox(id)+"."); ok && rest != "" && !strings.ContainsAny(rest, "*> \t") {
		return reply
	}
	return bus.SubjectIdentity + "." + id + ".answer"
}

func (r *Registry) renewal(ctx context.Context, id string, data []byte) Renewed {
	answer := Renewed{Device: id, CA: string(r.deps.CA.PEM())}
	refuse := func(err error) Renewed {
		answer.Code, answer.Error = fleet.CodeOf(err), err.Error()
		if answer.Code == "" {
			r.deps.Log.Error("renewal failed", "device", id, "error", err)
			answer.Code, answer.Error = fleet.CodeUnavailable, "internal error; try again later"
		}
		return answer
	}
	var q Renewal
	if len(data) > 2*maxCSR {
		return refuse(fleet.Errorf(fleet.CodeInvalid, "the request has %d bytes, the limit is %d", len(data), 2*maxCSR))
	}
	if len(data) > 0 && json.Unmarshal(data, &q) != nil {
		return refuse(fleet.Errorf(fleet.CodeInvalid, "the request is not JSON like {\"csr\": PEM}"))
	}
	device, err := r.Lookup(ctx, id)
	if err != nil {
		return refuse(err)
	}
	answer.NotAfter, answer.Due = device.CertificateNotAfter, r.Due(device)
	if q.CSR == "" {
		return answer
	}
	device, certPEM, err := r.Renew(ctx, id, []byte(q.CSR))
	if err != nil {
		return refuse(err)
	}
	answer.Certificate, answer.NotAfter = string(certPEM), device.Next.NotAfter
	return answer
}
