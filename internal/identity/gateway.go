package identity

import (
	"context"

	"cordon/internal/fleet"
)

// MaxChildren is how many devices one gateway may speak for: each adds two
// subjects to its permissions.
const MaxChildren = 500

// checkCredential completes and checks how an enrolment says that the device
// will prove itself.
func (r *Registry) checkCredential(ctx context.Context, e *Enrolment) error {
	if e.Credential == "" {
		switch {
		case e.Gateway != "":
			e.Credential = fleet.ByGateway
		case e.Maker != "":
			e.Credential = fleet.ByMaker
		}
	}
	if (e.Gateway != "") != (e.Credential == fleet.ByGateway) {
		return fleet.Errorf(fleet.CodeInvalid, "a gateway goes with credential gateway").On("gateway")
	}
	if (e.Maker != "") != (e.Credential == fleet.ByMaker) {
		return fleet.Errorf(fleet.CodeInvalid, "a maker goes with credential maker").On("maker")
	}
	if err := r.barred(ctx, e.ID, "", e.HardwareID); err != nil {
		return err
	}
	switch e.Credential {
	case "", fleet.ByCertificate, fleet.ByToken:
		return nil
	case fleet.ByMaker:
		return r.checkMade(ctx, *e)
	case fleet.ByGateway:
		return r.checkChild(ctx, *e)
	}
	return fleet.Errorf(fleet.CodeInvalid, "credential %q is not one of certificate, token, maker, gateway", e.Credential).On("credential")
}

func (r *Registry) checkMade(ctx context.Context, e Enrolment) error {
	all, err := r.Makers(ctx)
	if err != nil {
		return err
	}
	for _, m := range all {
		if m.Name != e.Maker {
			continue
		}
		if len(e.ID) < len(m.Prefix) || e.ID[:len(m.Prefix)] != m.Prefix {
			return fleet.Errorf(fleet.CodeInvalid, "maker %s speaks for ids that begin with %s", m.Name, m.Prefix).On("id")
		}
		return nil
	}
	return fleet.Errorf(fleet.CodeInvalid, "there is no maker %s", e.Maker).On("maker")
}

func (r *Registry) checkChild(ctx context.Context, e Enrolment) error {
	gateway, err := r.Lookup(ctx, e.Gateway)
	switch {
	case fleet.CodeOf(err) == fleet.CodeNotFound:
		return fleet.Errorf(fleet.CodeInvalid, "there is no device %s to be its gateway", e.Gateway).On("gateway")
	case err != nil:
		return err
	case gateway.ID == e.ID || gateway.Gateway != "":
		return fleet.Errorf(fleet.CodeInvalid, "device %s can't be its gateway: a gateway speaks for itself", e.Gateway).On("gateway")
	case gateway.State != fleet.Active && gateway.State != fleet.Enrolled:
		return fleet.Errorf(fleet.CodeInvalid, "gateway %s is %s", e.Gateway, gateway.State).On("gateway")
	}
	if n := len(r.Children(e.Gateway)); n >= MaxChildren {
		return fleet.Errorf(fleet.CodeTooMany, "gateway %s speaks for %d devices, the limit", e.Gateway, n).On("gateway")
	}
	return nil
}

// Children lists the active devices that a gateway speaks for, sorted by id.
func (r *Registry) Children(gateway string) []string {
	var children []string
	r.All(func(d fleet.Device) bool {
		if d.Gateway == gateway && d.State == fleet.Active {
			children = append(children, d.ID)
		}
		return true
	})
	return children
}
