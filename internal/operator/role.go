package operator

import "slices"

// Role says what an operator may do. Each role includes the ones before it.
type Role string

// The roles: viewer reads; analyst works on incidents; responder quarantines,
// releases and changes rules; admin enrols devices and manages operators.
const (
	Viewer    Role = "viewer"
	Analyst   Role = "analyst"
	Responder Role = "responder"
	Admin     Role = "admin"
)

// Roles lists every role, weakest first.
var Roles = []Role{Viewer, Analyst, Responder, Admin}

// Allows says whether r includes needed. An unknown role includes nothing.
func (r Role) Allows(needed Role) bool {
	have, need := slices.Index(Roles, r), slices.Index(Roles, needed)
	return have >= 0 && need >= 0 && have >= need
}
