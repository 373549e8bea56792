// Package rules embeds the rule pack that Cordon ships: one YAML file per
// rule, for the metrics of the agent, the authentication log and the audit
// events of devices, all in mode alert. Arming is the operator's decision.
package rules

import "embed"

// FS holds the pack.
//
//go:embed *.yaml
var FS embed.FS
