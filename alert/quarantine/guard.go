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

// Stop says why a guard kept a rule from quarantining a device.
type Stop string

// The guards, in the order in which they are asked.
const (
	StopEvidence  Stop = "evidence"   // not of the device's own compromise
	StopLevel     Stop = "level"      // the rule asks for no known level
	StopNotActive Stop = "not_active" // unknown, revoked or retired
	StopTooOld    Stop = "too_old"    // the record came too long ago
	StopReleased  Stop = "released"   // an operator released the device after that
	StopProtected Stop = "protected"
	StopRuleCap   Stop = "rule_cap"
	StopFleetCap  Stop = "fleet_cap"
)

var stops = []Stop{
	StopEvidence, StopLevel, StopNotActive, StopTooOld, StopReleased, StopProtected, StopRuleCap, StopFleetCap,
}

// Stopped is a decision that a guard did not allow. It travels on
// cordon.quarantine.<device>.
type Stopped struct {
	Device  string      `json:"device"`
	Stopped Stop        `json:"stopped"`
	Detail  string      `json:"detail"` // one sentence
	Rule    string      `json:"rule"`
	Level   fleet.Level `json:"level,omitempty"`
	Finding string      `json:"finding"`
	At      time.Time   `json:"at"`
}

// Stopped returns the newest stopped decisions, newest first.
func (s *Service) Stopped() []Stopped {
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
	if stop, detail := s.guard(f, held); stop != "" {
		s.stop(f, stop, detail)
		return nil
	}
	_, err := s.Request(ctx, fleet.QuarantineRequest{
		Device: f.Device, Level: f.Level, Reason: reason(f), Actor: rulePrefix + f.RuleID, Rule: f.RuleID, Finding: f.ID,
	})
	switch fleet.CodeOf(err) {
	case fleet.CodeConflict, fleet.CodeNotFound, fleet.CodeInvalid:
		s.stop(f, StopNotActive, err.Error())
		return nil
	}
	return err
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

func (s *Service) guard(f fleet.Finding, last fleet.Quarantine) (Stop, string) {
	now := s.deps.Clock()
	device, known := s.deps.Device(f.Device)
	switch {
	case f.Evidence != fleet.Own:
		return StopEvidence, "The rule judges an outside actor; only a device's own behaviour may quarantine it."
	case rank(f.Level) < 0:
		return StopLevel, fmt.Sprintf("The rule asks for level %q, which does not exist.", f.Level)
	case !known:
		return StopNotActive, "The device is not in the registry."
	case device.State == fleet.Revoked || device.State == fleet.Retired:
		return StopNotActive, fmt.Sprintf("The device is %s.", device.State)
	case s.cfg.MaxDelay > 0 && now.Sub(f.ReceivedAt) > s.cfg.MaxDelay:
		return StopTooOld, fmt.Sprintf("The record behind it came %s ago; the limit is %s.", now.Sub(f.ReceivedAt).Round(time.Second), s.cfg.MaxDelay)
	case beforeRelease(f, last, device.Historic):
		return StopReleased, fmt.Sprintf("The evidence is from before the release at %s by %s.", last.ReleasedAt.Format(time.RFC3339), last.ReleasedBy)
	case s.cfg.Protected != "" && slices.Contains(device.Tags, s.cfg.Protected):
		return StopProtected, fmt.Sprintf("The device has the tag %s: no rule may quarantine it.", s.cfg.Protected)
	}
	return s.caps(f, now)
}

// beforeRelease says whether a finding rests on what was known when the device
// was released. A historic device's own times say nothing about that.
func beforeRelease(f fleet.Finding, last fleet.Quarantine, historic bool) bool {
	if last.ReleasedAt.IsZero() {
		return false
	}
	return !f.ReceivedAt.After(last.ReleasedAt) || !historic && !f.WindowEnd.After(last.ReleasedAt)
}

// caps counts the devices that rules quarantined within the window.
func (s *Service) caps(f fleet.Finding, now time.Time) (Stop, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	byRule, all := map[string]bool{}, map[string]bool{}
	for id, d := range s.decisions {
		if now.Sub(d.at) >= s.cfg.Window {
			delete(s.decisions, id)
			continue
		}
		all[d.device] = true
		if d.rule == f.RuleID {
			byRule[d.device] = true
		}
	}
	if len(byRule) >= s.cfg.PerRule && !byRule[f.Device] {
		return StopRuleCap, fmt.Sprintf("The rule has quarantined %d devices within %s, its limit.", len(byRule), s.cfg.Window)
	}
	limit := s.cfg.PerFleet
	if s.deps.Fleet != nil {
		limit = max(limit, int(math.Floor(s.cfg.FleetShare*float64(s.deps.Fleet()))))
	}
	if len(all) >= limit && !all[f.Device] {
		return StopFleetCap, fmt.Sprintf("Rules have quarantined %d devices within %s, the limit for the fleet.", len(all), s.cfg.Window)
	}
	return "", ""
}

// stop makes a stopped decision known.
func (s *Service) stop(f fleet.Finding, why Stop, detail string) {
	stopped := Stopped{
		Device: f.Device, Stopped: why, Detail: detail, Rule: f.RuleID, Level: f.Level, Finding: f.ID, At: s.deps.Clock().UTC(),
	}
	s.mu.Lock()
	again := slices.ContainsFunc(s.stopped, func(o Stopped) bool { return o.Finding == f.ID })
	if !again {
		s.stopped = append(s.stopped, stopped)
		s.stopped = s.stopped[max(0, len(s.stopped)-s.cfg.Stopped):]
	}
	s.mu.Unlock()
	if again {
		return
	}
	s.metrics.stopped.WithLabelValues(string(why)).Inc()
	s.deps.Log.Warn("quarantine stopped by a guard", "device", f.Device, "rule", f.RuleID, "guard", string(why), "detail", detail)
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
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cordon_quarantine_decisions_total", Help: "Quarantines decided, by level and by who decided (rule or operator).",
		}, []string{"level", "origin"}),
		stopped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cordon_quarantine_stopped_total", Help: "Automatic quarantines that a guard stopped, by guard.",
		}, []string{"guard"}),
	}
	reg.MustRegister(m.decisions, m.stopped)
	for _, s := range stops {
		m.stopped.WithLabelValues(string(s))
	}
	return m
}
