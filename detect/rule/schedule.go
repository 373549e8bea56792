package rule

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// Schedule is when a rule looks: on some days, between some hours, in a time
// zone.
type Schedule struct {
	Days    []string `yaml:"days"`    // mon to sun; empty: every day
	Hours   string   `yaml:"hours"`   // "08:00-18:00"; "22:00-06:00" ends on the next day; empty: all
	Zone    string   `yaml:"zone"`    // an IANA name such as Europe/Berlin; empty or device: the device's own
	Outside bool     `yaml:"outside"` // look outside of this time instead

	from, to int // minutes of the day
	days     [7]bool
	location *time.Location // nil: the device's
}

var dayNames = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

func (c *checker) schedule(s *Schedule) {
	for i, day := range s.Days {
		at := slices.Index(dayNames, day)
		if at < 0 {
			c.fault("schedule.days["+strconv.Itoa(i)+"]", 0, "days has %q: use %s", day, strings.Join(dayNames, ", "))
			continue
		}
		s.days[at] = true
	}
	if len(s.Days) == 0 {
		s.days = [7]bool{true, true, true, true, true, true, true}
	}
	s.to = 24 * 60
	if s.Hours != "" {
		from, to, ok := strings.Cut(s.Hours, "-")
		a, ok1 := minutes(from)
		b, ok2 := minutes(to)
		if !ok || !ok1 || !ok2 || a == b {
			c.fault("schedule.hours", 0, `hours %q is no span such as "08:00-18:00"`, s.Hours)
		}
		s.from, s.to = a, b
	}
	if s.Zone != "" && s.Zone != "device" {
		location, err := time.LoadLocation(s.Zone)
		if err != nil {
			c.fault("schedule.zone", 0, "zone %q is no time zone such as Europe/Berlin", s.Zone)
		}
		s.location = location
	}
	if len(s.Days) == 0 && s.Hours == "" {
		c.fault("schedule", 0, "schedule names neither days nor hours: it restricts nothing")
	}
}

func minutes(text string) (int, bool) {
	h, m, ok := strings.Cut(strings.TrimSpace(text), ":")
	hour, err := strconv.Atoi(h)
	minute, err2 := strconv.Atoi(m)
	if !ok || err != nil || err2 != nil || len(m) != 2 || hour < 0 || minute < 0 || minute > 59 || hour*60+minute > 24*60 {
		return 0, false
	}
	return hour*60 + minute, true
}

// Looks says whether the rule looks at a time (Unix milliseconds) on a device
// in a zone.
func (r *Rule) Looks(at int64, device *time.Location) bool {
	s := r.Schedule
	if s == nil {
		return true
	}
	if s.location != nil {
		device = s.location
	}
	local := time.UnixMilli(at).In(device)
	minute, day := local.Hour()*60+local.Minute(), int(local.Weekday())
	var inside bool
	if s.from < s.to {
		inside = s.days[day] && minute >= s.from && minute < s.to
	} else {
		inside = s.days[day] && minute >= s.from || s.days[(day+6)%7] && minute < s.to
	}
	return inside != s.Outside
}
