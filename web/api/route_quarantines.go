package api

import (
	"context"
	"net/http"
	"slices"
	"time"

	"cordon/internal/fleet"
)

// Cells are what the quarantine stage offers beyond single decisions.
type Cells interface {
	Probation(ctx context.Context, device, actor, reason string, until time.Time) (fleet.Quarantine, error)
	Extend(ctx context.Context, device string, until time.Time, actor string) (fleet.Quarantine, error)
	Plan(r fleet.PlanRequest) (fleet.Plan, error)
	Approvals() []fleet.Approval
	Approve(ctx context.Context, id, actor, reason string, devices []string) (fleet.Approval, error)
	Reject(ctx context.Context, id, actor, reason string) (fleet.Approval, error)
	Guards() fleet.Guards
	Blocklist() []fleet.Block
	Resume(ctx context.Context, scope, actor, reason string) (fleet.Breaker, error)
}

type (
	quarantineInput struct {
		DevicePath
		Body QuarantineBody
	}
	quarantineOutput struct{ Body fleet.Quarantine }
	releaseInput     struct {
		DevicePath
		Body ReleaseBody
	}
	extendInput struct {
		DevicePath
		Body ExtendBody
	}
	listQuarantinesInput struct {
		Paging
		State  string `query:"state" enum:"active,all" default:"active" doc:"active: now; all: the whole history, newest first."`
		Device string `query:"device" maxLength:"64"`
	}
	listQuarantinesOutput struct{ Body fleet.Page[fleet.Quarantine] }
	planInput             struct{ Body PlanBody }
	planOutput            struct{ Body fleet.Plan }
	bulkInput             struct{ Body BulkBody }
	bulkOutput            struct{ Body BulkResult }
	approvalsOutput       struct{ Body fleet.Page[fleet.Approval] }
	approvalOutput        struct{ Body fleet.Approval }
	approveInput          struct {
		ID   string `path:"id" maxLength:"128"`
		Body ApproveBody
	}
	rejectInput struct {
		ID   string `path:"id" maxLength:"128"`
		Body ReasonRequest
	}
	guardsOutput   struct{ Body fleet.Guards }
	blocklistInput struct {
		IfNoneMatch string `header:"If-None-Match"`
	}
	blocklistOutput struct {
		Status       int
		ContentType  string `header:"Content-Type"`
		ETag         string `header:"ETag"`
		CacheControl string `header:"Cache-Control"`
		Body         []byte `contentType:"text/plain"`
	}
	resumeInput   struct{ Body ResumeBody }
	breakerOutput struct{ Body fleet.Breaker }
)

// QuarantineBody asks for a quarantine.
type QuarantineBody struct {
	Level    fleet.Level `json:"level"`
	Reason   string      `json:"reason" minLength:"1" maxLength:"1000"`
	Until    time.Time   `json:"until,omitzero" doc:"When it ends by itself; without it: when released."`
	Incident string      `json:"incident,omitempty" maxLength:"32" doc:"The incident that it belongs to."`
	Lower    bool        `json:"lower,omitempty" doc:"Replace a tighter level that is in force."`
}

// ReleaseBody releases a device.
type ReleaseBody struct {
	Reason         string    `json:"reason" minLength:"1" maxLength:"1000"`
	ProbationUntil time.Time `json:"probation_until,omitzero" doc:"Restrict the isolated device until then, before it is free."`
}

// ExtendBody changes when a quarantine ends.
type ExtendBody struct {
	Until  time.Time `json:"until,omitzero" doc:"When it ends by itself; without it: when released."`
	Reason string    `json:"reason" minLength:"1" maxLength:"1000"`
}

// DeviceSelection names devices or selects those that match every given field.
type DeviceSelection struct {
	Devices []string `json:"devices,omitempty" maxItems:"10000"`
	Cohort  string   `json:"cohort,omitempty" maxLength:"128"`
	Site    string   `json:"site,omitempty" maxLength:"128"`
	Model   string   `json:"model,omitempty" maxLength:"128"`
	Tag     string   `json:"tag,omitempty" maxLength:"128"`
}

func (s DeviceSelection) empty() bool {
	return s.Cohort == "" && s.Site == "" && s.Model == "" && s.Tag == ""
}

func (s DeviceSelection) matches(d fleet.Device) bool {
	return (s.Cohort == "" || d.Cohort == s.Cohort) && (s.Site == "" || d.Site == s.Site) && (s.Model == "" || d.Model == s.Model) &&
		(s.Tag == "" || slices.Contains(d.Tags, s.Tag))
}

// PlanBody asks what an action would do.
type PlanBody struct {
	DeviceSelection
	Level    fleet.Level    `json:"level"`
	Rule     string         `json:"rule,omitempty" maxLength:"128" doc:"Judge it as this rule's own action, by every guard; without it: as an operator's."`
	Severity fleet.Severity `json:"severity,omitempty" doc:"Of the rule's findings: critical ones have a share of their own."`
}

// BulkBody holds many devices.
type BulkBody struct {
	DeviceSelection
	Level  fleet.Level `json:"level"`
	Reason string      `json:"reason" minLength:"1" maxLength:"1000"`
	Until  time.Time   `json:"until,omitzero"`
	Expect int         `json:"expect" minimum:"1" doc:"How many devices the dry run said; another number changes nothing."`
}

// BulkResult says what a bulk action did.
type BulkResult struct {
	Items     []fleet.Quarantine `json:"items"`
	Confirmed int                `json:"confirmed"` // of them, by now
	Failed    []BulkFailure      `json:"failed"`
}

// BulkFailure is a device that a bulk action did not hold.
type BulkFailure struct {
	Device string `json:"device"`
	Code   string `json:"code"`
	Detail string `json:"detail"`
}

// ApproveBody approves quarantines.
type ApproveBody struct {
	Reason  string   `json:"reason" minLength:"1" maxLength:"1000"`
	Devices []string `json:"devices,omitempty" maxItems:"500" doc:"Only these; without it: all that the request names."`
}

// ResumeBody closes a circuit breaker.
type ResumeBody struct {
	Scope  string `json:"scope" minLength:"1" maxLength:"200" doc:"fleet, rule:<id> or cohort:<name>."`
	Reason string `json:"reason" minLength:"1" maxLength:"1000"`
}

func (a *API) quarantineRoutes() {
	add(a, route{"quarantine-device", http.MethodPost, "/devices/{id}/quarantine", "Quarantine a device and wait up to 2 s for the proof", "quarantine"}, a.quarantineDevice)
	add(a, route{"release-device", http.MethodPost, "/devices/{id}/release", "Release a device from quarantine, at once or through probation", "quarantine"}, a.releaseDevice)
	add(a, route{"extend-quarantine", http.MethodPost, "/devices/{id}/quarantine/extend", "Change when a quarantine ends by itself", "quarantine"}, a.extendQuarantine)
	add(a, route{"list-quarantines", http.MethodGet, "/quarantines", "List quarantines", "quarantine"}, a.listQuarantines)
	add(a, route{"plan-quarantine", http.MethodPost, "/quarantines/dry-run", "Say what a quarantine would do and what every guard says, without doing it", "quarantine"}, a.planQuarantine)
	add(a, route{"bulk-quarantine", http.MethodPost, "/quarantines/bulk", "Quarantine many devices", "quarantine"}, a.bulkQuarantine)
	add(a, route{"list-approvals", http.MethodGet, "/quarantines/approvals", "List approval requests: pending ones first", "quarantine"}, a.listApprovals)
	add(a, route{"approve-quarantines", http.MethodPost, "/quarantines/approvals/{id}/approve", "Hold the devices of an approval request", "quarantine"}, a.approveQuarantines)
	add(a, route{"reject-quarantines", http.MethodPost, "/quarantines/approvals/{id}/reject", "Reject an approval request", "quarantine"}, a.rejectQuarantines)
	add(a, route{"get-guards", http.MethodGet, "/quarantines/guards", "Show the guards of automatic quarantines", "quarantine"}, a.getGuards)
	add(a, route{"get-blocklist", http.MethodGet, "/quarantine/blocklist.txt", "Addresses for firewalls to block, one a line", "quarantine"}, a.getBlocklist)
	add(a, route{"resume-guard", http.MethodPost, "/quarantines/guards/resume", "Close a circuit breaker", "quarantine"}, a.resumeGuard)
}
