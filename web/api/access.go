package api

import "cordon/internal/operator"

// need is what an operation asks of its caller.
type need struct {
	role   operator.Role
	public bool // no session: sign-in and enrolment
	before bool // allowed while the password must still be changed or a second factor set up
	// fresh: somebody with a session must have given password and second factor
	// within the last quarter of an hour.
	fresh bool
	// scoped: callers who see only a part of the fleet may use it, because it
	// shows nothing of devices or keeps to the caller's scope by itself. Paths
	// /devices/{id}… and /incidents/{id}… need no mark: the scope is enforced
	// before the operation runs. Any other operation refuses such callers.
	scoped bool
}

// access is the one table of who may do what. An operation without a row is
// refused.
var access = map[string]need{
	"sign-in":           {public: true},
	"get-challenge":     {public: true},
	"redeem-enrollment": {public: true},
	"get-session":       {role: operator.Viewer, scoped: true, before: true},
	"sign-out":          {role: operator.Viewer, scoped: true, before: true},
	"change-password":   {role: operator.Viewer, scoped: true, before: true},

	"get-overview":  {role: operator.Viewer, scoped: true},
	"get-system":    {role: operator.Viewer, scoped: true},
	"stream-events": {role: operator.Viewer, scoped: true},

	"list-devices":       {role: operator.Viewer, scoped: true},
	"device-facets":      {role: operator.Viewer, scoped: true},
	"get-device":         {role: operator.Viewer},
	"list-metrics":       {role: operator.Viewer},
	"get-series":         {role: operator.Viewer},
	"list-audit-events":  {role: operator.Viewer},
	"enroll-device":      {role: operator.Admin, scoped: true},
	"renew-device-token": {role: operator.Admin},
	"revoke-device":      {role: operator.Admin},
	"retire-device":      {role: operator.Admin},

	"enroll-devices":     {role: operator.Admin},
	"issue-credential":   {role: operator.Admin},
	"rotate-device":      {role: operator.Responder},
	"list-children":      {role: operator.Viewer},
	"erase-device":       {role: operator.Admin, fresh: true},
	"list-erasures":      {role: operator.Admin},
	"list-fleet-tokens":  {role: operator.Admin},
	"create-fleet-token": {role: operator.Admin},
	"revoke-fleet-token": {role: operator.Admin},
	"list-makers":        {role: operator.Admin},
	"trust-maker":        {role: operator.Admin, fresh: true},
	"distrust-maker":     {role: operator.Admin, fresh: true},
	"list-keys":          {role: operator.Admin},
	"rotate-key":         {role: operator.Admin, fresh: true},
	"retire-key":         {role: operator.Admin, fresh: true},

	"quarantine-device": {role: operator.Responder},
	"release-device":    {role: operator.Responder},
	"list-quarantines":  {role: operator.Viewer, scoped: true},

	"extend-quarantine":   {role: operator.Responder},
	"plan-quarantine":     {role: operator.Analyst},
	"bulk-quarantine":     {role: operator.Responder},
	"list-approvals":      {role: operator.Viewer},
	"approve-quarantines": {role: operator.Responder},
	"reject-quarantines":  {role: operator.Responder},
	"get-guards":          {role: operator.Viewer},
	"get-blocklist":       {role: operator.Viewer},
	"resume-guard":        {role: operator.Responder},

	"list-incidents":         {role: operator.Viewer, scoped: true},
	"get-incident":           {role: operator.Viewer},
	"list-incident-findings": {role: operator.Viewer},
	"acknowledge-incident":   {role: operator.Analyst},
	"assign-incident":        {role: operator.Analyst},
	"comment-incident":       {role: operator.Analyst},
	"resolve-incident":       {role: operator.Analyst},
	"reopen-incident":        {role: operator.Analyst},

	"list-findings":     {role: operator.Viewer, scoped: true},
	"list-dead-letters": {role: operator.Analyst, scoped: true},
	"list-deliveries":   {role: operator.Viewer, scoped: true},

	"route-alert":      {role: operator.Viewer},
	"get-alert-policy": {role: operator.Viewer},
	"list-silences":    {role: operator.Viewer},
	"add-silence":      {role: operator.Responder},
	"end-silence":      {role: operator.Responder},
	"list-receivers":   {role: operator.Viewer},
	"set-receiver":     {role: operator.Admin},
	"remove-receiver":  {role: operator.Admin},
	"test-receiver":    {role: operator.Responder},
	"enable-receiver":  {role: operator.Responder},
	"replay-delivery":  {role: operator.Responder},
	"tag-incident":     {role: operator.Analyst},
	"link-ticket":      {role: operator.Analyst},
	"get-handover":     {role: operator.Viewer},
	"list-risks":       {role: operator.Viewer},
	"get-evidence":     {role: operator.Analyst},

	"list-rules":    {role: operator.Viewer, scoped: true},
	"get-rule":      {role: operator.Viewer, scoped: true},
	"set-rule-mode": {role: operator.Responder},
	"backtest-rule": {role: operator.Analyst},

	"list-operators": {role: operator.Viewer},
	"add-operator":   {role: operator.Admin, fresh: true},
	"reset-operator": {role: operator.Admin, fresh: true},
	"list-tokens":    {role: operator.Viewer, scoped: true},
	"create-token":   {role: operator.Viewer, scoped: true},
	"revoke-token":   {role: operator.Viewer, scoped: true},

	"prove-session":          {role: operator.Viewer, before: true, scoped: true},
	"list-sessions":          {role: operator.Viewer, scoped: true},
	"end-session":            {role: operator.Viewer, scoped: true},
	"begin-second-factor":    {role: operator.Viewer, before: true, fresh: true, scoped: true},
	"confirm-second-factor":  {role: operator.Viewer, before: true, scoped: true},
	"remove-second-factor":   {role: operator.Viewer, fresh: true, scoped: true},
	"make-recovery-codes":    {role: operator.Viewer, fresh: true, scoped: true},
	"modify-operator":        {role: operator.Admin, fresh: true},
	"remove-operator":        {role: operator.Admin, fresh: true},
	"list-operator-sessions": {role: operator.Admin},
	"drop-second-factor":     {role: operator.Admin, fresh: true},
	"get-policy":             {role: operator.Viewer, scoped: true},
	"set-policy":             {role: operator.Admin, fresh: true},
	"list-operator-log":      {role: operator.Admin},
	"verify-operator-log":    {role: operator.Admin},
	"export-operator-log":    {role: operator.Admin},

	"edit-device":      {role: operator.Responder},
	"edit-devices":     {role: operator.Responder, scoped: true},
	"change-incidents": {role: operator.Analyst, scoped: true},
	"export-devices":   {role: operator.Viewer, scoped: true},
	"export-incidents": {role: operator.Viewer, scoped: true},
	"export-findings":  {role: operator.Viewer, scoped: true},
}
