package api

import (
	"net/http"

	"cordon/internal/fleet"
)

type (
	// RulePath names a rule in the path.
	RulePath struct {
		ID string `path:"id" maxLength:"128" pattern:"^[A-Za-z0-9_.-]+$" doc:"The rule's id."`
	}
	ruleInput   struct{ RulePath }
	ruleOutput  struct{ Body fleet.Rule }
	rulesOutput struct{ Body fleet.Page[fleet.Rule] }
	modeInput   struct {
		RulePath
		Body ModeRequest
	}
)

// ModeRequest changes what a rule may do.
type ModeRequest struct {
	Mode   fleet.Mode `json:"mode"`
	Reason string     `json:"reason" minLength:"1" maxLength:"1000"`
}

func (a *API) ruleRoutes() {
	add(a, route{"list-rules", http.MethodGet, "/rules", "List the rules", "rules"}, a.listRules)
	add(a, route{"get-rule", http.MethodGet, "/rules/{id}", "Show a rule with its YAML", "rules"}, a.getRule)
	add(a, route{"set-rule-mode", http.MethodPut, "/rules/{id}/mode", "Change what a rule may do", "rules"}, a.setRuleMode)
}
