package quarantine

import (
	"cordon/internal/fleet"
)

// Plan says what an action would do, to whom, and what every guard says about
// it. It changes nothing. With a rule the devices are judged one after the
// other, each counting for the caps of the next.
func (s *Service) Plan(r fleet.PlanRequest) (fleet.Plan, error) {
	if _, err := fleet.Parse("level", string(r.Level), fleet.Levels); err != nil {
		return fleet.Plan{}, fleet.Errorf(fleet.CodeInvalid, "%w", err).On("level")
	}
	now := s.deps.Clock()
	plan := fleet.Plan{Level: r.Level, Rule: r.Rule, Devices: []fleet.Planned{}}
	var planned []decision
	tripped := ""
	for _, id := range r.Devices {
		s.mu.Lock()
		held := s.entries[id].q
		s.mu.Unlock()
		p := fleet.Planned{Device: id, Guards: []fleet.GuardAnswer{}}
		if held.Active() {
			p.Current = held.Level
		}
		device, known := s.deps.Device(id)
		v := verdict{}
		switch {
		case held.Active() && rank(held.Level) >= rank(r.Level):
			p.Outcome = "already"
		case !known || device.State == fleet.Revoked || device.State == fleet.Retired:
			v = verdict{stop: StopNotActive, detail: "The device is unknown, revoked or retired."}
		case r.Rule == "":
			if why := s.protected(device); why != "" {
				p.Guards = append(p.Guards, fleet.GuardAnswer{Guard: StopProtected, Detail: why + " Operators may."})
			}
		case s.protected(device) != "":
			v = verdict{stop: StopProtected, detail: s.protected(device)}
		case tripped != "" && s.touches(tripped, r.Rule, device.Cohort):
			v = verdict{stop: StopBreaker, detail: "The circuit breaker of " + tripped + " would be open."}
		default:
			s.mu.Lock()
			v = s.caps(fleet.Finding{Device: id, RuleID: r.Rule, Severity: r.Severity}, device.Cohort, now, planned)
			s.mu.Unlock()
		}
		if v.scope != "" && tripped == "" {
			tripped, plan.Breaker = v.scope, v.scope
		}
		p.Guards = append(p.Guards, answers(r.Rule, v)...)
		switch {
		case p.Outcome == "already":
			plan.Already++
		case v.asks():
			p.Outcome = "approval"
			plan.Approval++
		case v.stop != "":
			p.Outcome = "stopped"
			plan.Stopped++
		default:
			p.Outcome = "quarantine"
			plan.Quarantine++
			if r.Rule != "" {
				p.Until = s.hold(s.offence(held, now), now)
				planned = append(planned, decision{device: id, rule: r.Rule, cohort: device.Cohort, at: now})
			}
		}
		plan.Devices = append(plan.Devices, p)
	}
	return plan, nil
}

func (s *Service) touches(name, rule, cohort string) bool {
	return name == fleetScope || name == rulePrefix+rule || cohort != "" && name == cohortPrefix+cohort
}

// answers lists the guards up to the one that does not pass.
func answers(rule string, v verdict) []fleet.GuardAnswer {
	order := []string{StopNotActive}
	if rule != "" {
		order = append(order, StopProtected, StopBreaker, StopRuleCap, StopCohortCap, StopFleetCap)
	}
	var list []fleet.GuardAnswer
	for _, g := range order {
		if g == v.stop {
			return append(list, fleet.GuardAnswer{Guard: g, Detail: v.detail})
		}
		list = append(list, fleet.GuardAnswer{Guard: g, Pass: true})
	}
	return list
}
