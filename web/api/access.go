package api

import "cordon/internal/operator"

// need is what an operation asks of its caller.
type need struct {
	role   operator.Role
	public bool // no session: sign-in and enrolment
	before bool // allowed while the password must still be changed
}

// access is the one table of who may do what. An operation without a row is
// refused.
var access = map[string]need{
	"sign-in":           {public: true},
	"redeem-enrollment": {public: true},
	"get-session":       {role: operator.Viewer, before: true},
	"sign-out":          {role: operator.Viewer, before: true},
	"change-password":   {role: operator.Viewer, before: true},

	"get-overview":  {role: operator.Viewer},
	"get-system":    {role: operator.Viewer},
	"stream-events": {role: operator.Viewer},

	"list-devices":       {role: operator.Viewer},
	"device-facets":      {role: operator.Viewer},
	"get-device":         {role: operator.Viewer},
	"list-metrics":       {role: operator.Viewer},
	"get-series":         {role: operator.Viewer},
	"list-audit-events":  {role: operator.Viewer},
	"enroll-device":      {role: operator.Admin},
	"renew-device-token": {role: operator.Admin},
	"revoke-device":      {role: operator.Admin},
	"retire-device":      {role: operator.Admin},

	"quarantine-device": {role: operator.Responder},
	"release-device":    {role: operator.Responder},
	"list-quarantines":  {role: operator.Viewer},

	"extend-quarantine":   {role: operator.Responder},
	"plan-quarantine":     {role: operator.Analyst},
	"bulk-quarantine":     {role: operator.Responder},
	"list-approvals":      {role: operator.Viewer},
	"approve-quarantines": {role: operator.Responder},
	"reject-quarantines":  {role: operator.Responder},
	"get-guards":          {role: operator.Viewer},
	"get-blocklist":       {role: operator.Viewer},
	"resume-guard":        {role: operator.Responder},

	"list-incidents":         {role: operator.Viewer},
	"get-incident":           {role: operator.Viewer},
	"list-incident-findings": {role: operator.Viewer},
	"acknowledge-incident":   {role: operator.Analyst},
	"assign-incident":        {role: operator.Analyst},
	"comment-incident":       {role: operator.Analyst},
	"resolve-incident":       {role: operator.Analyst},
	"reopen-incident":        {role: operator.Analyst},

	"list-findings":     {role: operator.Viewer},
	"list-dead-letters": {role: operator.Analyst},
	"list-deliveries":   {role: operator.Viewer},

	"list-rules":    {role: operator.Viewer},
	"get-rule":      {role: operator.Viewer},
	"set-rule-mode": {role: operator.Responder},

	"list-operators": {role: operator.Viewer},
	"add-operator":   {role: operator.Admin},
	"reset-operator": {role: operator.Admin},
	"list-tokens":    {role: operator.Viewer},
	"create-token":   {role: operator.Viewer},
	"revoke-token":   {role: operator.Viewer},
}
