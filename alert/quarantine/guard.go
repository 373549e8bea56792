package quarantine

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

// The guards, in the order in which they are asked.
const (
	StopEvidence  = "evidence"   // not of the device's own compromise
	StopLevel     = "level"      // the rule asks for no known level
	StopNotActive = "not_active" // unknown, revoked or retired
	StopTooOld    = "too_old"    // the record came too long ago
	StopReleased  = "released"   // an operator released the device after that
	StopProtected = "protected"
	StopBreaker   = "breaker" // a circuit breaker is open
	StopRuleCap   = "rule_cap"
	StopCohortCap = "cohort_cap"
	StopFleetCap  = "fleet_cap"
)

var stops = []string{
	StopEvidence, StopLevel, StopNotActive, StopTooOld, StopReleased, StopProtected, StopBreaker, StopRuleCap, StopCohortCap, StopFleetCap,
}

// verdict is why a guard does not allow a decision; the zero value allows it.
type verdict struct {
	stop   string
	detail string
	scope  string // of the cap that was reached or the breaker that is open
}

// asks says whether an operator may decide in the guard's place.
func (v verdict) asks() bool {
	switch v.stop {
	case StopProtected, StopBreaker, StopRuleCap, StopCohortCap, StopFleetCap:
		return true
	}
	return false
}

// Stopped returns the newest stopped decisions, newest first.
func (s *Service) Stopped() []fleet.Stopped {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := slices.Clone(s.stopped)
	slices.Reverse(list)
	return list
}

// Consider decides on a finding. An error means that it must be considered
// again. Findings of rules that are not armed decide nothing.
func (s *Service) Consider(ctx context.Context, f fleet.Finding) error {
	if f.Mode != fleet.Armed || f.Cleared {
		return nil
	}
	s.mu.Lock()
	_, done := s.findings[f.ID]
	held := s.entries[f.Device].q
	s.mu.Unlock()
	if done || held.Active() && rank(held.Level) >= rank(f.Level) {
		return nil
	}
	now := s.deps.Clock()
	if v := s.guard(f, held, now); v.stop != "" {
		return s.refuse(ctx, f, v)
	}
	offence := s.offence(held, now)
	_, err := s.Request(ctx, fleet.QuarantineRequest{
		Device: f.Device, Level: f.Level, Reason: reason(f), Actor: rulePrefix + f.RuleID, Rule: f.RuleID, Finding: f.ID,
		Offence: offence, Until: s.hold(offence, now),
	})
	switch fleet.CodeOf(err) {
	case fleet.CodeConflict, fleet.CodeNotFound, fleet.CodeInvalid:
		s.stop(f, verdict{stop: StopNotActive, detail: err.Error()}, "")
		return nil
	}
	return err
}

// refuse handles a decision that a guard did not allow. Every step may be
// repeated: the finding is acknowledged only behind the last one.
func (s *Service) refuse(ctx context.Context, f fleet.Finding, v verdict) error {
	if v.scope != "" {
		if err := s.trip(ctx, f, v); err != nil {
			return err
		}
	}
	approval := ""
	if v.asks() {
		a, err := s.ask(ctx, f, v)
		if err != nil {
			return err
		}
		approval = a
		if err := s.fault(FaultAsked); err != nil {
			return err
		}
	}
	s.stop(f, v, approval)
	return nil
}

// reason is what the finding says, within the limit of a reason.
func reason(f fleet.Finding) string {
	text := f.Explanation.Sentence
	if text == "" {
		text = f.RuleTitle
	}
	if text == "" {
		text = "rule " + f.RuleID
	}
	return text[:min(len(text), maxReason)]
}

// offence counts a device's automatic quarantines in a row. A device that was
// free for long enough begins anew.
func (s *Service) offence(last fleet.Quarantine, now time.Time) int {
	if last.Offence == 0 || !last.Active() && now.Sub(last.ReleasedAt) >= s.cfg.ResetAfter {
		return 1
	}
	return last.Offence + 1
}

// hold is when an automatic quarantine ends unless it is extended.
func (s *Service) hold(offence int, now time.Time) time.Time {
	if s.cfg.FirstHold <= 0 {
		return time.Time{}
	}
	hold := float64(s.cfg.FirstHold) * math.Pow(max(s.cfg.HoldFactor, 1), float64(offence-1))
	return now.Add(time.Duration(min(hold, float64(max(s.cfg.MaxHold, s.cfg.FirstHold))))).UTC()
}

func (s *Service) guard(f fleet.Finding, last fleet.Quarantine, now time.Time) verdict {
	device, known := s.deps.Device(f.Device)
	switch {
	case f.Evidence != fleet.Own:
		return verdict{stop: StopEvidence, detail: "The rule judges an outside actor; only a device's own behaviour may quarantine it."}
	case rank(f.Level) < 0:
		return verdict{stop: StopLevel, detail: fmt.Sprintf("The rule asks for level %q, which does not exist.", f.Level)}
	case !known:
		return verdict{stop: StopNotActive, detail: "The device is not in the registry."}
	case device.State == fleet.Revoked || device.State == fleet.Retired:
		return verdict{stop: StopNotActive, detail: fmt.Sprintf("The device is %s.", device.State)}
	case s.cfg.MaxDelay > 0 && now.Sub(f.ReceivedAt) > s.cfg.MaxDelay:
		return verdict{stop: StopTooOld, detail: fmt.Sprintf("The record behind it came %s ago; the limit is %s.", now.Sub(f.ReceivedAt).Round(time.Second), s.cfg.MaxDelay)}
	case beforeRelease(f, last, device.Historic):
		return verdict{stop: StopReleased, detail: fmt.Sprintf("The evidence reaches back before the release at %s by %s.", last.ReleasedAt.Format(time.RFC3339), last.ReleasedBy)}
	}
	if why := s.protected(device); why != "" {
		return verdict{stop: StopProtected, detail: why}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.caps(f, device.Cohort, now, nil)
}

func (s *Service) protected(device fleet.Device) string {
	if slices.Contains(s.cfg.ProtectedDevices, device.ID) {
		return "The device is protected: no rule may quarantine it."
	}
	if s.cfg.Protected != "" && slices.Contains(device.Tags, s.cfg.Protected) {
		return fmt.Sprintf("The device has the tag %s: no rule may quarantine it.", s.cfg.Protected)
	}
	return ""
}

// beforeRelease says whether a finding rests on what was known when the device
// was released: any part of its window. A historic device's own times say
// nothing about that.
func beforeRelease(f fleet.Finding, last fleet.Quarantine, historic bool) bool {
	if last.ReleasedAt.IsZero() {
		return false
	}
	return !f.ReceivedAt.After(last.ReleasedAt) || !historic && f.WindowStart.Before(last.ReleasedAt)
}

// scope is a group of devices with a cap of its own.
type scope struct {
	name     string
	stop     string
	count    int
	share    float64
	size     int // devices in it, for the share
	reserve  bool
	contains func(d decision) bool
}

func (s *Service) scopes(ruleID, cohort string) []scope {
	size := 0
	if s.deps.Fleet != nil {
		size = s.deps.Fleet()
	}
	list := []scope{{
		name: rulePrefix + ruleID, stop: StopRuleCap, count: s.cfg.PerRule, share: s.cfg.RuleShare, size: size,
		contains: func(d decision) bool { return d.rule == ruleID },
	}}
	if cohort != "" && s.deps.Cohort != nil {
		list = append(list, scope{
			name: cohortPrefix + cohort, stop: StopCohortCap, count: s.cfg.PerCohort, share: s.cfg.CohortShare, size: s.deps.Cohort(cohort), reserve: true,
			contains: func(d decision) bool { return d.cohort == cohort },
		})
	}
	return append(list, scope{
		name: fleetScope, stop: StopFleetCap, count: s.cfg.PerFleet, share: s.cfg.FleetShare, size: size, reserve: true,
		contains: func(decision) bool { return true },
	})
}

// limit is the cap in devices, and how many of them only critical findings may
// use.
func (s *Service) limit(c scope) (limit, reserved int) {
	limit = max(c.count, int(math.Floor(c.share*float64(c.size))))
	if c.reserve && s.cfg.CriticalShare > 0 && limit > 1 {
		reserved = min(max(1, int(math.Floor(s.cfg.CriticalShare*float64(limit)))), limit-1)
	}
	return limit, reserved
}

// used counts the devices that rules quarantined within the window, or since
// the scope's breaker was resumed. planned are further ones, of a dry run.
func (s *Service) used(c scope, now time.Time, planned []decision) map[string]bool {
	since := now.Add(-s.cfg.Window)
	if at := s.breakers[c.name].ResumedAt; at.After(since) {
		since = at
	}
	devices := map[string]bool{}
	for _, d := range s.decisions {
		if d.at.After(since) && c.contains(d) {
			devices[d.device] = true
		}
	}
	for _, d := range planned {
		if c.contains(d) {
			devices[d.device] = true
		}
	}
	return devices
}

// caps asks breakers and caps.
func (s *Service) caps(f fleet.Finding, cohort string, now time.Time, planned []decision) verdict {
	for id, d := range s.decisions {
		if now.Sub(d.at) >= s.cfg.Window {
			delete(s.decisions, id)
		}
	}
	scopes := s.scopes(f.RuleID, cohort)
	for _, c := range scopes {
		if b := s.breakers[c.name]; b.Open {
			return verdict{stop: StopBreaker, scope: c.name, detail: fmt.Sprintf("The circuit breaker of %s is open since %s: an operator decides.", c.name, b.OpenedAt.Format(time.RFC3339))}
		}
	}
	for _, c := range scopes {
		limit, reserved := s.limit(c)
		if f.Severity != fleet.Critical {
			limit -= reserved
		}
		devices := s.used(c, now, planned)
		if len(devices) < limit || devices[f.Device] {
			continue
		}
		what := "All rules together have quarantined"
		switch c.stop {
		case StopRuleCap:
			what = "The rule has quarantined"
		case StopCohortCap:
			what = "In cohort " + cohort + " rules have quarantined"
		}
		detail := fmt.Sprintf("%s %d devices within %s, the limit", what, len(devices), s.cfg.Window)
		if f.Severity != fleet.Critical && reserved > 0 {
			detail += fmt.Sprintf(" (%d more are kept for critical findings)", reserved)
		}
		return verdict{stop: c.stop, detail: detail + ".", scope: c.name}
	}
	return verdict{}
}

// stop makes a stopped decision known.
func (s *Service) stop(f fleet.Finding, v verdict, approval string) {
	stopped := fleet.Stopped{
		Device: f.Device, Stopped: v.stop, Detail: v.detail, Rule: f.RuleID, Level: f.Level, Finding: f.ID, Approval: approval, At: s.deps.Clock().UTC(),
	}
	s.mu.Lock()
	again := slices.ContainsFunc(s.stopped, func(o fleet.Stopped) bool { return o.Finding == f.ID })
	if !again {
		s.stopped = append(s.stopped, stopped)
		s.stopped = s.stopped[max(0, len(s.stopped)-s.cfg.Stopped):]
	}
	s.mu.Unlock()
	if again {
		return
	}
	s.metrics.stopped.WithLabelValues(v.stop).Inc()
	s.deps.Log.Warn("quarantine stopped by a guard", "device", f.Device, "rule", f.RuleID, "guard", v.stop, "detail", v.detail)
	data, err := json.Marshal(stopped)
	if err == nil {
		err = s.deps.Bus.Cordon.Publish(bus.SubjectDecision+"."+f.Device, data)
	}
	if err != nil {
		s.deps.Log.Warn("stopped quarantine was not published", "device", f.Device, "error", err)
	}
}

type metrics struct {
	decisions *prometheus.CounterVec
	stopped   *prometheus.CounterVec
	tripped   prometheus.Counter
	approvals *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cordon_quarantine_decisions_total", Help: "Quarantines decided, by level and by who decided (rule or operator).",
		}, []string{"level", "origin"}),
		stopped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cordon_quarantine_stopped_total", Help: "Automatic quarantines that a guard stopped, by guard.",
		}, []string{"guard"}),
		tripped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cordon_quarantine_breakers_opened_total", Help: "Circuit breakers opened.",
		}),
		approvals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cordon_quarantine_approvals_total", Help: "Approval requests, by what became of them.",
		}, []string{"state"}),
	}
	reg.MustRegister(m.decisions, m.stopped, m.tripped, m.approvals)
	for _, s := range stops {
		m.stopped.WithLabelValues(s)
	}
	return m
}
