package api

import (
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"cordon/internal/fleet"
	"cordon/internal/operator"
)

// The vocabulary may not know huma, so its enumerations get their schema from
// these stand-ins.
type (
	severityEnum        string
	modeEnum            string
	evidenceEnum        string
	levelEnum           string
	quarantineStateEnum string
	incidentStateEnum   string
	deviceStateEnum     string
	verdictEnum         string
	roleEnum            string
)

func (severityEnum) Schema(huma.Registry) *huma.Schema { return enumeration(fleet.Severities...) }
func (modeEnum) Schema(huma.Registry) *huma.Schema     { return enumeration(fleet.Modes...) }
func (evidenceEnum) Schema(huma.Registry) *huma.Schema {
	return enumeration(fleet.Own, fleet.Outside)
}
func (levelEnum) Schema(huma.Registry) *huma.Schema { return enumeration(fleet.Levels...) }
func (quarantineStateEnum) Schema(huma.Registry) *huma.Schema {
	return enumeration(fleet.Requested, fleet.Applied, fleet.Confirmed, fleet.Released, fleet.Expired, fleet.Failed)
}

func (incidentStateEnum) Schema(huma.Registry) *huma.Schema {
	return enumeration(fleet.Open, fleet.Acknowledged, fleet.Resolved)
}

func (deviceStateEnum) Schema(huma.Registry) *huma.Schema {
	return enumeration(fleet.Enrolled, fleet.Active, fleet.Revoked, fleet.Retired)
}
func (verdictEnum) Schema(huma.Registry) *huma.Schema { return enumeration(fleet.Verdicts...) }
func (roleEnum) Schema(huma.Registry) *huma.Schema    { return enumeration(operator.Roles...) }

func enumeration[T ~string](values ...T) *huma.Schema {
	s := &huma.Schema{Type: huma.TypeString}
	for _, v := range values {
		s.Enum = append(s.Enum, string(v))
	}
	return s
}

// aliasEnums teaches a registry the vocabulary's enumerations.
func aliasEnums(r huma.Registry) {
	r.RegisterTypeAlias(reflect.TypeFor[fleet.Severity](), reflect.TypeFor[severityEnum]())
	r.RegisterTypeAlias(reflect.TypeFor[fleet.Mode](), reflect.TypeFor[modeEnum]())
	r.RegisterTypeAlias(reflect.TypeFor[fleet.Evidence](), reflect.TypeFor[evidenceEnum]())
	r.RegisterTypeAlias(reflect.TypeFor[fleet.Level](), reflect.TypeFor[levelEnum]())
	r.RegisterTypeAlias(reflect.TypeFor[fleet.QuarantineState](), reflect.TypeFor[quarantineStateEnum]())
	r.RegisterTypeAlias(reflect.TypeFor[fleet.IncidentState](), reflect.TypeFor[incidentStateEnum]())
	r.RegisterTypeAlias(reflect.TypeFor[fleet.DeviceState](), reflect.TypeFor[deviceStateEnum]())
	r.RegisterTypeAlias(reflect.TypeFor[fleet.Verdict](), reflect.TypeFor[verdictEnum]())
	r.RegisterTypeAlias(reflect.TypeFor[operator.Role](), reflect.TypeFor[roleEnum]())
}
