package api

import (
	"bytes"
	"context"
	"time"

	"cordon/internal/fleet"
	"cordon/internal/identity"
)

func (a *API) enrollDevices(ctx context.Context, in *bulkEnrollInput) (*bulkEnrollOutput, error) {
	rows, faults := identity.ParseBulk(bytes.NewReader(in.RawBody))
	out := BulkEnrolled{Devices: len(rows), Items: []BulkDevice{}, Faults: faults}
	if len(faults) == 0 {
		done, more, err := a.deps.Lifecycle.EnrollAll(ctx, rows, caller(ctx).Name, in.DryRun)
		if err != nil && len(done) == 0 {
			return nil, err
		}
		if err != nil { // half way: the caller needs the tokens of what was done
			a.deps.Log.Error("bulk enrolment broke off", "request_id", requestID(ctx), "enrolled", len(done), "error", err)
			more = append(more, identity.LineFault{Message: "Cordon failed half way: enrol the lines that are not among items again"})
		}
		out.Faults = more
		for _, d := range done {
			item := BulkDevice{
				Line: d.Line, ID: d.Device.ID, Credential: string(d.Device.Credential), Gateway: d.Device.Gateway, Token: d.Secret,
				TokenExpiresAt: d.Device.TokenExpiresAt,
			}
			if item.Credential == "" {
				item.Credential = string(fleet.ByCertificate)
			}
			out.Items = append(out.Items, item)
		}
	}
	out.Faults = filled(out.Faults)
	out.Valid = len(out.Faults) == 0
	if !in.DryRun {
		note(ctx, "", nil, map[string]any{"enrolled": len(out.Items), "faults": len(out.Faults)})
	}
	return &bulkEnrollOutput{Body: out}, nil
}

func (a *API) issueCredential(ctx context.Context, in *deviceInput) (*credentialOutput, error) {
	note(ctx, in.ID, nil, nil)
	d, secret, err := a.deps.Lifecycle.IssueCredential(ctx, in.ID, caller(ctx).Name)
	if err != nil {
		return nil, err
	}
	until := d.CertificateNotAfter
	if d.Next != nil {
		until = d.Next.NotAfter
	}
	return &credentialOutput{Body: DeviceCredential{Device: d.ID, Token: secret, ExpiresAt: until}}, nil
}

func (a *API) rotateDevice(ctx context.Context, in *deviceReasonInput) (*deviceEntryOutput, error) {
	note(ctx, in.ID, nil, in.Body)
	d, err := a.deps.Lifecycle.Rotate(ctx, in.ID, caller(ctx).Name, in.Body.Reason)
	if err != nil {
		return nil, err
	}
	return &deviceEntryOutput{Body: deviceView(d)}, nil
}

func (a *API) listChildren(ctx context.Context, in *deviceInput) (*childrenOutput, error) {
	if _, err := a.device(ctx, in.ID); err != nil {
		return nil, err
	}
	children := filled(a.deps.Lifecycle.Children(in.ID))
	return &childrenOutput{Body: ChildList{Items: children, Total: uint64(len(children))}}, nil
}

func (a *API) eraseDevice(ctx context.Context, in *eraseInput) (*erasureOutput, error) {
	note(ctx, in.ID, nil, in.Body)
	if in.Body.Confirm != in.ID {
		return nil, fleet.Errorf(fleet.CodeInvalid, "say the device's id again as confirm: an erasure can't be undone").On("body.confirm")
	}
	// Once begun it is not left half done because the caller went away.
	done, err := a.deps.Erasures.Erase(context.WithoutCancel(ctx), in.ID, caller(ctx).Name, in.Body.Reason)
	if err != nil {
		return nil, err
	}
	note(ctx, in.ID, nil, map[string]any{"reason": in.Body.Reason, "receipt": done.Receipt})
	return &erasureOutput{Body: done}, nil
}

func (a *API) listErasures(ctx context.Context, _ *noInput) (*erasuresOutput, error) {
	ledger, err := a.deps.Erasures.Ledger(ctx)
	if err != nil {
		return nil, err
	}
	return &erasuresOutput{Body: ErasureList{Items: filled(ledger), Total: uint64(len(ledger))}}, nil
}

func (a *API) listFleetTokens(ctx context.Context, _ *noInput) (*fleetTokensOut, error) {
	list, err := a.deps.Lifecycle.FleetTokens(ctx)
	if err != nil {
		return nil, err
	}
	return &fleetTokensOut{Body: FleetTokenList{Items: filled(list), Total: uint64(len(list))}}, nil
}

func (a *API) createFleetToken(ctx context.Context, in *fleetTokenInput) (*fleetTokenOutput, error) {
	note(ctx, in.Body.Prefix, nil, nil)
	t, secret, err := a.deps.Lifecycle.NewFleetToken(ctx, identity.FleetToken{
		Prefix: in.Body.Prefix, Most: in.Body.Most, Cohort: in.Body.Cohort, Site: in.Body.Site, Model: in.Body.Model, CreatedBy: caller(ctx).Name,
	}, time.Duration(in.Body.Hours)*time.Hour)
	if err != nil {
		return nil, err
	}
	note(ctx, t.ID, nil, t)
	return &fleetTokenOutput{Body: NewFleetToken{
		FleetToken: t, Secret: secret,
		Command: "cordon agent --url " + a.url() + " --ca ca.pem --token " + secret + " --device " + t.Prefix + "ID",
	}}, nil
}

func (a *API) revokeFleetToken(ctx context.Context, in *fleetTokenPath) (*revokedTokenOutput, error) {
	note(ctx, in.ID, nil, nil)
	t, err := a.deps.Lifecycle.RevokeFleetToken(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return &revokedTokenOutput{Body: t}, nil
}

func (a *API) listMakers(ctx context.Context, _ *noInput) (*makersOutput, error) {
	list, err := a.deps.Lifecycle.Makers(ctx)
	if err != nil {
		return nil, err
	}
	return &makersOutput{Body: MakerList{Items: filled(list), Total: uint64(len(list))}}, nil
}

func (a *API) trustMaker(ctx context.Context, in *makerInput) (*makerOutput, error) {
	note(ctx, in.Body.Name, nil, nil)
	m, err := a.deps.Lifecycle.TrustMaker(ctx, identity.Maker{
		Name: in.Body.Name, Prefix: in.Body.Prefix, From: in.Body.From, Certificate: in.Body.Certificate, Enroll: in.Body.Enroll, Most: in.Body.Most,
		Cohort: in.Body.Cohort, Site: in.Body.Site, Model: in.Body.Model,
	}, caller(ctx).Name)
	if err != nil {
		return nil, err
	}
	note(ctx, m.Name, nil, m)
	return &makerOutput{Body: m}, nil
}

func (a *API) distrustMaker(ctx context.Context, in *distrustInput) (*distrustOutput, error) {
	note(ctx, in.Name, nil, in.Body)
	n, err := a.deps.Lifecycle.DistrustMaker(ctx, in.Name, caller(ctx).Name, in.Body.Reason)
	if err != nil {
		return nil, err
	}
	note(ctx, in.Name, nil, map[string]any{"reason": in.Body.Reason, "revoked": n})
	return &distrustOutput{Body: Distrusted{Revoked: n}}, nil
}

func (a *API) listKeys(context.Context, *noInput) (*keysOutput, error) {
	list := a.deps.Lifecycle.Authorities()
	return &keysOutput{Body: KeyList{Items: list, Total: uint64(len(list))}}, nil
}

func (a *API) rotateKey(ctx context.Context, _ *noInput) (*keysOutput, error) {
	id, err := a.deps.Lifecycle.RotateAuthority(ctx, caller(ctx).Name)
	if err != nil {
		return nil, err
	}
	note(ctx, id, nil, nil)
	return a.listKeys(ctx, nil)
}

func (a *API) retireKey(ctx context.Context, in *retireKeyInput) (*retireKeyOutput, error) {
	note(ctx, in.ID, nil, in.Body)
	revoked, err := a.deps.Lifecycle.RetireAuthority(ctx, in.ID, caller(ctx).Name, in.Body.Reason, in.Body.Force)
	if err != nil {
		return nil, err
	}
	note(ctx, in.ID, nil, map[string]any{"reason": in.Body.Reason, "revoked": len(revoked)})
	return &retireKeyOutput{Body: RetiredKey{Revoked: filled(revoked)}}, nil
}

// enrolled says what to do with a device that was enrolled.
func (a *API) enrolled(d fleet.Device, token string) string {
	switch d.Credential {
	case fleet.ByToken:
		return "mosquitto_pub --cafile ca.pem -i " + d.ID + " -u " + d.ID + " -P " + token + " -t fleet/telemetry/" + d.ID + " -q 1 -m …"
	case fleet.ByMaker:
		return "connect it with its maker's certificate"
	case fleet.ByGateway:
		return "publish for it on fleet.telemetry." + d.Gateway + "." + d.ID + " as " + d.Gateway
	}
	return "cordon agent --url " + a.url() + " --ca ca.pem --token " + token
}
