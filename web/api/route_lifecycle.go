package api

import (
	"context"
	"net/http"
	"time"

	"cordon/internal/fleet"
	"cordon/internal/identity"
)

// Lifecycle is what the registry does about identities (identity.Registry).
type Lifecycle interface {
	Admit(ctx context.Context, q identity.Redemption) (fleet.Device, []byte, error)
	EnrollAll(ctx context.Context, rows []identity.Row, actor string, dry bool) ([]identity.EnrolledRow, []identity.LineFault, error)
	IssueCredential(ctx context.Context, id, actor string) (fleet.Device, string, error)
	Rotate(ctx context.Context, id, actor, reason string) (fleet.Device, error)
	Children(gateway string) []string
	NewFleetToken(ctx context.Context, t identity.FleetToken, life time.Duration) (identity.FleetToken, string, error)
	FleetTokens(ctx context.Context) ([]identity.FleetToken, error)
	RevokeFleetToken(ctx context.Context, id string) (identity.FleetToken, error)
	TrustMaker(ctx context.Context, m identity.Maker, actor string) (identity.Maker, error)
	Makers(ctx context.Context) ([]identity.Maker, error)
	DistrustMaker(ctx context.Context, name, actor, reason string) (revoked int, err error)
	Authorities() []identity.Authority
	AuthorityPEM() []byte
	RotateAuthority(ctx context.Context, actor string) (string, error)
	RetireAuthority(ctx context.Context, id, actor, reason string, force bool) (revoked []string, err error)
}

// Erasures delete all data of a device (identity.Eraser).
type Erasures interface {
	Erase(ctx context.Context, id, actor, reason string) (identity.Erasure, error)
	Ledger(ctx context.Context) ([]identity.Erasure, error)
}

type (
	bulkEnrollInput struct {
		DryRun  bool   `query:"dry_run" doc:"Only check."`
		RawBody []byte `contentType:"text/csv"`
	}
	bulkEnrollOutput struct{ Body BulkEnrolled }
	credentialOutput struct{ Body DeviceCredential }
	childrenOutput   struct{ Body ChildList }
	eraseInput       struct {
		DevicePath
		Body EraseRequest
	}
	erasureOutput    struct{ Body identity.Erasure }
	erasuresOutput   struct{ Body ErasureList }
	fleetTokenInput  struct{ Body FleetTokenRequest }
	fleetTokenOutput struct{ Body NewFleetToken }
	fleetTokensOut   struct{ Body FleetTokenList }
	fleetTokenPath   struct {
		ID string `path:"id" maxLength:"32" pattern:"^[a-z0-9]+$" doc:"The fleet token's id."`
	}
	revokedTokenOutput struct{ Body identity.FleetToken }
	makerInput         struct{ Body MakerRequest }
	makerOutput        struct{ Body identity.Maker }
	makersOutput       struct{ Body MakerList }
	distrustInput      struct {
		Name string `path:"name" maxLength:"64" pattern:"^[A-Za-z0-9_-]+$" doc:"The maker's name."`
		Body ReasonRequest
	}
	distrustOutput struct{ Body Distrusted }
	keysOutput     struct{ Body KeyList }
	retireKeyInput struct {
		ID   string `path:"id" maxLength:"32" pattern:"^[a-z0-9]+$" doc:"The authority's id."`
		Body RetireKeyRequest
	}
	retireKeyOutput struct{ Body RetiredKey }
)

// EnrollIdentity is how a new device will prove who it is.
type EnrollIdentity struct {
	Credential string `json:"credential,omitempty" enum:"certificate,token,maker,gateway" doc:"Default: certificate; gateway or maker when one is named."`
	Maker      string `json:"maker,omitempty" maxLength:"64" doc:"Whose certificate it shows."`
	Gateway    string `json:"gateway,omitempty" maxLength:"64" doc:"The device that speaks for it."`
	HardwareID string `json:"hardware_id,omitempty" maxLength:"128" doc:"Such as a serial number; no two devices share one."`
}

// BulkDevice is a line of a bulk enrolment.
type BulkDevice struct {
	Line           int       `json:"line"`
	ID             string    `json:"id"`
	Credential     string    `json:"credential"`
	Gateway        string    `json:"gateway,omitempty"`
	Token          string    `json:"token,omitempty" doc:"One-time token, or token credential; shown only once."`
	TokenExpiresAt time.Time `json:"token_expires_at,omitzero"`
}

// BulkEnrolled is what a bulk enrolment did, or what is wrong with its lines.
type BulkEnrolled struct {
	Valid   bool                 `json:"valid" doc:"False: nothing was enrolled, because of the faults."`
	Devices int                  `json:"devices" doc:"How many lines name a device."`
	Items   []BulkDevice         `json:"items"`
	Faults  []identity.LineFault `json:"faults"`
}

// DeviceCredential is a token credential, shown only once.
type DeviceCredential struct {
	Device    string    `json:"device"`
	Token     string    `json:"token" doc:"Password over MQTT (user name: the id) and NATS."`
	ExpiresAt time.Time `json:"expires_at"`
}

// ChildList lists the devices that a gateway speaks for.
type ChildList struct {
	Items []string `json:"items"`
	Next  string   `json:"next"`
	Total uint64   `json:"total"`
}

// EraseRequest asks for the erasure of a device.
type EraseRequest struct {
	Confirm string `json:"confirm" maxLength:"64" doc:"The device's id again: this can't be undone."`
	Reason  string `json:"reason" minLength:"1" maxLength:"1000"`
}

// ErasureList is the erasure ledger.
type ErasureList struct {
	Items []identity.Erasure `json:"items"`
	Next  string             `json:"next"`
	Total uint64             `json:"total"`
}

// FleetTokenRequest asks for a fleet token.
type FleetTokenRequest struct {
	Prefix string `json:"prefix" minLength:"2" maxLength:"64" pattern:"^[A-Za-z0-9_-]+$" doc:"Ids that it may enrol."`
	Most   int    `json:"most" minimum:"1" maximum:"10000" doc:"How many devices it may enrol."`
	Hours  int    `json:"hours,omitempty" minimum:"1" maximum:"24" default:"24" doc:"How long it is good for."`
	Cohort string `json:"cohort,omitempty" maxLength:"128"`
	Site   string `json:"site,omitempty" maxLength:"128"`
	Model  string `json:"model,omitempty" maxLength:"128"`
}

// NewFleetToken is a fleet token with its secret, shown only once.
type NewFleetToken struct {
	FleetToken identity.FleetToken `json:"fleet_token"`
	Secret     string              `json:"secret"`
	Command    string              `json:"command" doc:"What to run on the devices."`
}

// FleetTokenList lists fleet tokens.
type FleetTokenList struct {
	Items []identity.FleetToken `json:"items"`
	Next  string                `json:"next"`
	Total uint64                `json:"total"`
}

// MakerRequest asks to trust a device maker.
type MakerRequest struct {
	Name        string `json:"name" minLength:"1" maxLength:"64" pattern:"^[A-Za-z0-9_-]+$"`
	Prefix      string `json:"prefix" minLength:"2" maxLength:"64" pattern:"^[A-Za-z0-9_-]+$" doc:"Ids for which its certificates count."`
	Certificate string `json:"certificate" minLength:"1" maxLength:"16384" doc:"Its authority, PEM."`
	From        string `json:"from,omitempty" enum:"common_name,serial_number,dns" default:"common_name" doc:"Where its certificates hold the device's id."`
	Enroll      bool   `json:"enroll,omitempty" doc:"Enter devices that nobody enrolled when they first connect."`
	Most        int    `json:"most,omitempty" minimum:"0" maximum:"100000" doc:"How many it may enter."`
	Cohort      string `json:"cohort,omitempty" maxLength:"128"`
	Site        string `json:"site,omitempty" maxLength:"128"`
	Model       string `json:"model,omitempty" maxLength:"128"`
}

// MakerList lists makers.
type MakerList struct {
	Items []identity.Maker `json:"items"`
	Next  string           `json:"next"`
	Total uint64           `json:"total"`
}

// Distrusted says how many devices of a maker were revoked.
type Distrusted struct {
	Revoked int `json:"revoked"`
}

// KeyList lists Cordon's authorities, oldest first.
type KeyList struct {
	Items []identity.Authority `json:"items"`
	Next  string               `json:"next"`
	Total uint64               `json:"total"`
}

// RetireKeyRequest ends an authority.
type RetireKeyRequest struct {
	Reason string `json:"reason" minLength:"1" maxLength:"1000"`
	Force  bool   `json:"force,omitempty" doc:"Revoke the devices that depend on it: they must be enrolled again."`
}

// RetiredKey says which devices were revoked with an authority.
type RetiredKey struct {
	Revoked []string `json:"revoked"`
}

func (a *API) lifecycleRoutes() {
	add(a, route{"enroll-devices", http.MethodPost, "/devices/bulk", "Enrol the devices of a CSV, all or none", "devices"}, a.enrollDevices)
	add(a, route{"issue-credential", http.MethodPost, "/devices/{id}/credential", "Issue a token credential to a device without certificates", "devices"}, a.issueCredential)
	add(a, route{"rotate-device", http.MethodPost, "/devices/{id}/rotate", "Ask a device for a new key", "devices"}, a.rotateDevice)
	add(a, route{"list-children", http.MethodGet, "/devices/{id}/children", "List the devices that a gateway speaks for", "devices"}, a.listChildren)
	add(a, route{"erase-device", http.MethodPost, "/devices/{id}/erase", "Erase all data of a device and get a signed receipt", "devices"}, a.eraseDevice)
	add(a, route{"list-erasures", http.MethodGet, "/erasures", "List the erasure ledger", "devices"}, a.listErasures)
	add(a, route{"list-fleet-tokens", http.MethodGet, "/fleet-tokens", "List fleet tokens", "devices"}, a.listFleetTokens)
	add(a, route{"create-fleet-token", http.MethodPost, "/fleet-tokens", "Make a token that enrols many devices", "devices"}, a.createFleetToken)
	add(a, route{"revoke-fleet-token", http.MethodDelete, "/fleet-tokens/{id}", "Revoke a fleet token", "devices"}, a.revokeFleetToken)
	add(a, route{"list-makers", http.MethodGet, "/makers", "List trusted device makers", "devices"}, a.listMakers)
	add(a, route{"trust-maker", http.MethodPost, "/makers", "Trust a device maker's certificates for an id prefix", "devices"}, a.trustMaker)
	add(a, route{"distrust-maker", http.MethodPost, "/makers/{name}/distrust", "Stop trusting a maker and revoke its devices", "devices"}, a.distrustMaker)
	add(a, route{"list-keys", http.MethodGet, "/keys", "List Cordon's certificate authorities", "system"}, a.listKeys)
	add(a, route{"rotate-key", http.MethodPost, "/keys/rotate", "Make a new certificate authority beside the old ones", "system"}, a.rotateKey)
	add(a, route{"retire-key", http.MethodPost, "/keys/{id}/retire", "Stop trusting a certificate authority and destroy its key", "system"}, a.retireKey)
}
