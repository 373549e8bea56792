package engine

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"cordon/detect/baseline"
	"cordon/internal/fleet"
)

// narrow is the space between a number and its unit.
const narrow = "\u202f"

// words are what a sentence may speak of.
type words struct {
	device, cohort, metric, unit string
	value                        float64
	limit                        *float64
	expected                     *fleet.Range
	counted                      int
	window                       int64 // ms
	actor, user, program         string
	message                      string
	users                        []string
	from, to                     string
}

// fill replaces the placeholders of a rule's sentence.
func (w words) fill(text string) string {
	limit := ""
	if w.limit != nil {
		limit = quantity(*w.limit, w.unit)
	}
	return strings.NewReplacer(
		"{device}", w.device, "{cohort}", w.cohort, "{metric}", plainMetric(w.metric), "{value}", quantity(w.value, w.unit),
		"{count}", strconv.Itoa(w.counted), "{window}", span(w.window), "{actor}", orElse(w.actor, "an unknown source"),
		"{user}", orElse(w.user, "an unnamed account"), "{program}", orElse(w.program, "a program"), "{limit}", limit,
		"{message}", clip(w.message, 100), "{for}", accounts(w.users), "{from}", orElse(w.from, "nothing"), "{to}", orElse(w.to, "nothing"),
	).Replace(text)
}

func accounts(users []string) string {
	switch len(users) {
	case 0:
		return ""
	case 1:
		return " for " + users[0]
	}
	return fmt.Sprintf(" for %d accounts", len(users))
}

func (w words) threshold(sentence, op string, readings int) string {
	if sentence == "" {
		sentence = "{device} has {metric} of {value}"
	}
	text := w.fill(sentence)
	if w.limit != nil {
		side := map[string]string{
			">": "at most ", ">=": "less than ", "<": "at least ", "<=": "more than ", "==": "anything but ", "!=": "exactly ",
		}[op]
		text += ". The rule allows " + side + quantity(*w.limit, w.unit)
		if readings > 1 {
			text += fmt.Sprintf("; %d readings in a row broke it", readings)
		}
	}
	return text + "."
}

func (w words) baseline(sentence string, j baseline.Judgement, span int) string {
	if sentence == "" {
		sentence = "{device} has {metric} of {value}"
	}
	text := w.fill(sentence)
	if j.Shift {
		text += fmt.Sprintf(" on average over about %d readings", span)
	}
	if j.Cohort {
		return text + ". Devices of its cohort show " + interval(*w.expected, w.unit) + " at this hour."
	}
	return text + ". Its own history expects " + interval(*w.expected, w.unit) + " at this hour."
}

func (w words) count(sentence, title string, atLeast int, window time.Duration) string {
	if sentence == "" {
		sentence = "{device}: " + strings.ToLower(title[:1]) + title[1:]
		if atLeast > 1 {
			sentence += ", {count} times in {window}"
		}
	}
	text := w.fill(sentence)
	if atLeast > 1 {
		text += fmt.Sprintf(". The rule allows %d in %s", atLeast-1, span(window.Milliseconds()))
	}
	return text + "."
}

func (w words) absence(silent, allowed time.Duration) string {
	return fmt.Sprintf("%s has been silent for %s. The rule allows %s.", w.device, span(silent.Milliseconds()), span(allowed.Milliseconds()))
}

func (w words) back(ms int64) string {
	return fmt.Sprintf("%s is heard again after %s of silence.", w.device, span(ms))
}

func (w words) cleared(ms int64) string {
	return fmt.Sprintf("%s is back to normal: %s is %s, after %s.", w.device, plainMetric(w.metric), quantity(w.value, w.unit), span(ms))
}

func fleetSentence(members []*device, watched int, allowed time.Duration) string {
	cohort := members[0].cohort
	for _, d := range members {
		if d.cohort != cohort {
			cohort = ""
		}
	}
	of := ""
	if cohort != "" {
		of = " of cohort " + cohort
	}
	return fmt.Sprintf("%d of %d devices%s fell silent together, starting with %s. The rule allows %s of silence.",
		len(members), watched, of, members[0].id, span(allowed.Milliseconds()))
}

// scoreText says what a tail probability means.
func scoreText(surprise float64, sustained int, m *baseline.Model, d *device, at int64) string {
	text := "score 10" + superscript(-int(math.Floor(surprise)))
	if surprise > 30 {
		text = "score below 10" + superscript(-30)
	}
	if n := m.Samples(); n > 1 && at/1000 > m.Started {
		interval := float64(at/1000-m.Started) / float64(n-1) // seconds between readings
		if seconds := interval * math.Pow(10, surprise); seconds < 100*365.25*86400 {
			text += fmt.Sprintf(" (once in %s for this device)", span(int64(seconds*1000)))
		} else {
			text += " (less than once in 100 years for this device)"
		}
	}
	if sustained > 1 {
		text += fmt.Sprintf(", %d readings in a row", sustained)
	}
	started := time.Unix(m.Started, 0).In(d.zone)
	return text + fmt.Sprintf("; learned from %s readings since %s", grouped(uint64(m.Samples())), started.Format("2 Jan 2006"))
}

func superscript(n int) string {
	return strings.NewReplacer("-", "⁻", "0", "⁰", "1", "¹", "2", "²", "3", "³", "4", "⁴", "5", "⁵", "6", "⁶", "7", "⁷", "8", "⁸", "9", "⁹").
		Replace(strconv.Itoa(n))
}

func grouped(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// span writes a duration as people say it.
func span(ms int64) string {
	s := (ms + 500) / 1000
	switch {
	case s < 1:
		return "a second"
	case s < 60:
		return fmt.Sprintf("%d%ss", s, narrow)
	case s < 3600:
		if s%60 != 0 && s < 600 {
			return fmt.Sprintf("%d%smin %d%ss", s/60, narrow, s%60, narrow)
		}
		return fmt.Sprintf("%d%smin", s/60, narrow)
	case s < 48*3600:
		if m := s % 3600 / 60; m != 0 {
			return fmt.Sprintf("%d%sh %d%smin", s/3600, narrow, m, narrow)
		}
		return fmt.Sprintf("%d%sh", s/3600, narrow)
	case s < 730*86400:
		return fmt.Sprintf("%d days", s/86400)
	}
	return fmt.Sprintf("%d years", s/(365*86400+21600))
}

// quantity writes a value with three significant digits and its unit.
func quantity(v float64, unit string) string {
	v, name := scaled(v, v, unit)
	return join(significant(v), name)
}

func interval(r fleet.Range, unit string) string {
	reference := max(math.Abs(r.Low), math.Abs(r.High))
	low, name := scaled(r.Low, reference, unit)
	high, _ := scaled(r.High, reference, unit)
	a, b := significant(low), significant(high)
	if a == b {
		return join(a, name)
	}
	return a + " to " + join(b, name)
}

func join(number, unit string) string {
	if unit == "" {
		return number
	}
	return number + narrow + unit
}

// scaled chooses a decimal prefix by a reference value and a unit's name.
func scaled(v, reference float64, unit string) (value float64, name string) {
	switch unit {
	case "", "1":
		return v, ""
	case "Cel":
		return v, "°C"
	case "By/s", "By":
		name = strings.Replace(unit, "By", "B", 1)
		for _, p := range []struct {
			factor float64
			prefix string
		}{{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
			if math.Abs(reference) >= p.factor {
				return v / p.factor, p.prefix + name
			}
		}
		return v, name
	case "1/s":
		return v, "per second"
	}
	return v, unit
}

// possible keeps the low end of what is expected possible: shares, amounts and
// rates are not negative.
func possible(low float64, unit string) float64 {
	switch unit {
	case "%", "By", "By/s", "1/s", "1", "s", "packets/s":
		return max(low, 0)
	}
	return low
}

// significant writes three significant digits, whole thousands grouped.
func significant(v float64) string {
	if v == 0 || math.Abs(v) < 1e-12 {
		return "0"
	}
	digits := 2 - int(math.Floor(math.Log10(math.Abs(v))))
	if digits > 9 {
		return strconv.FormatFloat(v, 'g', 3, 64)
	}
	if digits <= 0 {
		text := grouped(uint64(math.Abs(math.Round(v))))
		if v < 0 {
			text = "−" + text
		}
		return text
	}
	text := strconv.FormatFloat(v, 'f', digits, 64)
	text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	return strings.Replace(text, "-", "−", 1)
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// plainMetric turns a metric's name into words: the unit at its end goes.
func plainMetric(metric string) string {
	name := metric
	for _, suffix := range []string{"_percent", "_celsius", "_bytes_per_second", "_per_second", "_bytes", "_seconds"} {
		if cut, ok := strings.CutSuffix(name, suffix); ok && cut != "" {
			name = cut
			break
		}
	}
	return strings.ReplaceAll(name, "_", " ")
}

// unitOf is the unit that a rule states, else what the metric's name says.
func unitOf(a *active, metric string) string {
	if a.Unit != "" {
		return a.Unit
	}
	return unitFromName(metric)
}

func unitFromName(metric string) string {
	for _, u := range []struct{ suffix, unit string }{
		{"_percent", "%"},
		{"_celsius", "Cel"},
		{"_bytes_in_per_second", "By/s"},
		{"_bytes_out_per_second", "By/s"},
		{"_bytes_per_second", "By/s"},
		{"_per_second", "1/s"},
		{"_bytes", "By"},
		{"_seconds", "s"},
	} {
		if strings.HasSuffix(metric, u.suffix) {
			return u.unit
		}
	}
	return ""
}
