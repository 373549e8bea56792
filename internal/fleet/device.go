package fleet

import (
	"fmt"
	"time"
)

// MaxDeviceID is the longest device id, in bytes.
const MaxDeviceID = 64

// CheckDeviceID says why id is not a device id. Ids become subject tokens,
// certificate names and key-value keys, hence the narrow alphabet.
func CheckDeviceID(id string) error {
	if id == "" {
		return fmt.Errorf("device id is empty: use 1 to %d of A-Z a-z 0-9 _ -", MaxDeviceID)
	}
	if len(id) > MaxDeviceID {
		return fmt.Errorf("device id has %d bytes, the limit is %d", len(id), MaxDeviceID)
	}
	for i := range len(id) {
		c := id[i]
		ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-'
		if !ok {
			return fmt.Errorf("device id has %q at byte %d: use 1 to %d of A-Z a-z 0-9 _ -", c, i+1, MaxDeviceID)
		}
	}
	return nil
}

// DeviceState is where a device stands in its life cycle.
type DeviceState string

// The life cycle: enrolled (has a token, not yet a certificate) → active →
// revoked | retired.
const (
	Enrolled DeviceState = "enrolled"
	Active   DeviceState = "active"
	Revoked  DeviceState = "revoked"
	Retired  DeviceState = "retired"
)

// Device is an entry of the registry (key-value bucket "device", key = ID).
type Device struct {
	ID         string      `json:"id"`
	State      DeviceState `json:"state"`
	Cohort     string      `json:"cohort"`
	Site       string      `json:"site,omitempty"`
	Model      string      `json:"model,omitempty"`
	Firmware   string      `json:"firmware,omitempty"`
	Owner      string      `json:"owner,omitempty"`
	Tags       []string    `json:"tags,omitempty"`
	TimeZone   string      `json:"time_zone,omitempty"` // IANA name; empty is UTC
	Historic   bool        `json:"historic,omitempty"`  // no limit on the age of its data (replays)
	EnrolledAt time.Time   `json:"enrolled_at"`
	EnrolledBy string      `json:"enrolled_by"`
	// Why and by whom it was revoked or retired.
	StateAt     time.Time `json:"state_at,omitzero"`
	StateBy     string    `json:"state_by,omitempty"`
	StateReason string    `json:"state_reason,omitempty"`
	// Certificate of an active device; empty before.
	CertificateSerial    string    `json:"certificate_serial,omitempty"`
	CertificateNotBefore time.Time `json:"certificate_not_before,omitzero"`
	CertificateNotAfter  time.Time `json:"certificate_not_after,omitzero"`
	// TokenHash is the SHA-256 of the one-time enrolment token, in hex, while
	// it is unused. It never leaves the bucket.
	TokenHash      string    `json:"token_hash,omitempty"`
	TokenExpiresAt time.Time `json:"token_expires_at,omitzero"`

	// Credential says how it proves who it is; empty is by certificate.
	Credential Credential `json:"credential,omitempty"`
	Authority  string     `json:"authority,omitempty"`   // id of the authority that signed its certificate
	KeyHash    string     `json:"key_hash,omitempty"`    // SHA-256 of its public key (SPKI), in hex
	HardwareID string     `json:"hardware_id,omitempty"` // as it or the enrolment says, such as a serial number
	Maker      string     `json:"maker,omitempty"`       // whose certificate it shows
	Gateway    string     `json:"gateway,omitempty"`     // device that speaks for it; empty: it speaks for itself
	// Next is a credential that was issued and has not connected yet. Until it
	// does, the old one is good.
	Next     *NextCredential `json:"next,omitempty"`
	RotateAt time.Time       `json:"rotate_at,omitzero"` // when an operator asked for a new key
	ErasedAt time.Time       `json:"erased_at,omitzero"`
}

// Credential is how a device proves who it is.
type Credential string

// The ways to prove an identity.
const (
	ByCertificate Credential = "certificate" // of Cordon's own authority
	ByToken       Credential = "token"       // a long secret, for devices without certificates
	ByMaker       Credential = "maker"       // a certificate of its maker
	ByGateway     Credential = "gateway"     // none: its gateway speaks for it
)

// NextCredential is what will replace a device's credential once it connects.
type NextCredential struct {
	Serial    string    `json:"serial"`
	KeyHash   string    `json:"key_hash,omitempty"`
	Authority string    `json:"authority,omitempty"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
}
