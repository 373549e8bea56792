package replay

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strings"
	"time"

	"cordon/detect/engine"
	"cordon/detect/rule"
	"cordon/internal/fleet"
)

// A scenario is a folder: rules (*.yaml), timed input (input.ndjson) and what
// must be found (findings.golden). Each line of the input is one record:
//
//	{"ts":"…","device":"d","metrics":{"cpu_percent":12}}
//	{"ts":"…","device":"d","events":[{"class":"authentication",…}]}
//	{"ts":"…","tick":true}                        false: the gate was not healthy
//	{"ts":"…","control":{"device":{"id":"d",…}}}
//	{"ts":"…","device":"d","wave":{"metric":"m","every":"5m","count":600,"level":20,"swing":5,"noise":1}}
//	{"ts":"…","ticks":{"every":"10s","count":90}}
//
// A wave is so many readings of a daily cycle with a fixed noise. ts is both
// the device's clock and the time of receipt, unless "received" says another.
type scenarioLine struct {
	At       time.Time          `json:"ts"`
	Received time.Time          `json:"received"`
	Device   string             `json:"device"`
	Metrics  map[string]float64 `json:"metrics"`
	Events   []fleet.AuditEvent `json:"events"`
	Tick     *bool              `json:"tick"`
	Control  *fleet.Control     `json:"control"`
	Wave     *waveLine          `json:"wave"`
	Ticks    *repeatLine        `json:"ticks"`
}

type repeatLine struct {
	Every string `json:"every"`
	Count int    `json:"count"`
}

type waveLine struct {
	repeatLine
	Metric string  `json:"metric"`
	Level  float64 `json:"level"`
	Swing  float64 `json:"swing"`
	Noise  float64 `json:"noise"`
}

// maxRepeat bounds what one line of a scenario stands for.
const maxRepeat = 1_000_000

// Scenario runs the rules of a folder over its input and returns what was
// found, one line each.
func Scenario(folder fs.FS) ([]byte, error) {
	rules, err := rule.ParseFS(folder)
	if err != nil {
		return nil, err
	}
	if len(rules) == 0 {
		return nil, errors.New("scenario has no rule: add a .yaml file")
	}
	input, err := fs.ReadFile(folder, "input.ndjson")
	if err != nil {
		return nil, fmt.Errorf("read input: %w", err)
	}
	s := &scenario{engine: engine.New(engine.DefaultConfig())}
	for _, r := range rules {
		s.apply(fleet.Record{Kind: fleet.ControlKind, Control: fleet.Control{Rule: &fleet.RuleChange{ID: r.ID, Source: r.Source}}})
	}
	scanner := bufio.NewScanner(bytes.NewReader(input))
	scanner.Buffer(nil, 1<<20)
	for n := 1; scanner.Scan(); n++ {
		if len(bytes.TrimSpace(scanner.Bytes())) == 0 {
			continue
		}
		if err := s.line(scanner.Bytes()); err != nil {
			return nil, fmt.Errorf("input.ndjson:%d: %w", n, err)
		}
	}
	return s.out.Bytes(), scanner.Err()
}

type scenario struct {
	engine *engine.Engine
	seq    uint64
	out    bytes.Buffer
}

func (s *scenario) line(raw []byte) error {
	var l scenarioLine
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&l); err != nil {
		return err
	}
	if l.Received.IsZero() {
		l.Received = l.At
	}
	r := fleet.Record{ReceivedAt: l.Received, Device: l.Device}
	switch {
	case l.Control != nil:
		r.Kind, r.Control = fleet.ControlKind, *l.Control
	case l.Tick != nil:
		r.Kind, r.Tick = fleet.TickKind, fleet.Tick{At: l.At, Healthy: *l.Tick}
	case l.Ticks != nil:
		return l.Ticks.each(func(_ int, after time.Duration) {
			at := l.At.Add(after)
			s.apply(fleet.Record{Kind: fleet.TickKind, ReceivedAt: at, Tick: fleet.Tick{At: at, Healthy: true}})
		})
	case l.Wave != nil:
		return l.Wave.each(func(i int, after time.Duration) { s.apply(l.Wave.record(l.Device, l.At.Add(after), i)) })
	case l.Events != nil:
		r.Kind, r.Audit = fleet.AuditKind, l.Events
		for i := range r.Audit {
			if r.Audit[i].ObservedAt.IsZero() {
				r.Audit[i].ObservedAt = l.At
			}
		}
	case l.Metrics != nil:
		r.Kind = fleet.TelemetryKind
		for metric, value := range l.Metrics {
			r.Readings = append(r.Readings, fleet.Reading{ObservedAt: l.At, Metric: metric, Value: value})
		}
		slices.SortFunc(r.Readings, func(a, b fleet.Reading) int { return strings.Compare(a.Metric, b.Metric) })
	default:
		return errors.New("line says nothing: want metrics, events, tick, control, wave or ticks")
	}
	s.apply(r)
	return nil
}

func (l *repeatLine) each(do func(i int, after time.Duration)) error {
	every, err := time.ParseDuration(l.Every)
	if err != nil || every <= 0 {
		return fmt.Errorf("every %q is no duration such as 5m", l.Every)
	}
	if l.Count < 1 || l.Count > maxRepeat {
		return fmt.Errorf("count %d is not between 1 and %d", l.Count, maxRepeat)
	}
	for i := range l.Count {
		do(i, time.Duration(i)*every)
	}
	return nil
}

// record is a reading of the wave; its noise is a fixed sequence.
func (w *waveLine) record(device string, at time.Time, i int) fleet.Record {
	day := float64(at.Unix()%86400) / 86400
	noise := math.Sin(float64(i)*12.9898) * 43758.5453
	noise = 2*(noise-math.Floor(noise)) - 1
	value := w.Level + w.Swing*math.Sin(2*math.Pi*day) + w.Noise*noise
	return fleet.Record{Kind: fleet.TelemetryKind, ReceivedAt: at, Device: device, Readings: []fleet.Reading{{ObservedAt: at, Metric: w.Metric, Value: value}}}
}

func (s *scenario) apply(r fleet.Record) {
	s.seq++
	r.StreamSeq = s.seq
	for _, f := range s.engine.Apply(r) {
		what := "raised"
		if f.Cleared {
			what = "cleared"
		}
		fmt.Fprintf(&s.out, "%s %s %s on %s", f.WindowEnd.Format(time.RFC3339), what, f.RuleID, f.Device)
		if f.Actor != "" {
			fmt.Fprintf(&s.out, " by %s", f.Actor)
		}
		fmt.Fprintf(&s.out, " since %s: %s", f.WindowStart.Format(time.RFC3339), f.Explanation.Sentence)
		if f.Explanation.ScoreText != "" {
			fmt.Fprintf(&s.out, " [%s]", f.Explanation.ScoreText)
		}
		s.out.WriteByte('\n')
	}
}
