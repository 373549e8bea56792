package codec

import (
	"strconv"
	"strings"
	"time"
)

// stamp reads the time of a line in the forms of syslogd, rsyslog, journald
// and logread. shifted is the text of a time that could not be believed: one
// without a zone that lies ahead of receipt.
//
//	Dec 10 06:55:46           Dec 10 06:55:46.123456    Dec 10 2024 06:55:46
//	Thu Dec 10 06:55:46 2024  2024-12-10T06:55:46+01:00 2024-12-10T06:55:46+0100
//	2024-12-10 06:55:46,123   Tue 2024-12-10 06:55:46 CET   1733813746.123456
func (p *lineParser) stamp(line string) (at time.Time, rest, shifted string, ok bool) {
	bare, weekday := withoutWeekday(line)
	if isDate(bare) {
		return p.isoStamp(bare, weekday)
	}
	if at, rest, ok := unixStamp(line); ok {
		return at, rest, "", true
	}
	const short, long = len("Jan _2 15:04:05"), len("Jan _2 2006 15:04:05")
	if len(bare) >= long {
		for _, form := range []string{"Jan _2 2006 15:04:05", "Jan _2 15:04:05 2006"} {
			if at, err := time.Parse(form, bare[:long]); err == nil && inYears(at) {
				return at, strings.TrimPrefix(bare[long:], " "), "", true
			}
		}
	}
	if len(bare) < short {
		return at, line, "", false
	}
	text := bare[:short]
	// The year 2000 has a 29 February.
	t, err := time.Parse("2006 Jan _2 15:04:05", "2000 "+text)
	if err != nil {
		return at, line, "", false
	}
	rest, fraction := cutFraction(bare[short:])
	at = p.inYear(t).Add(fraction)
	at, shifted = p.believe(at, text)
	return at, strings.TrimPrefix(rest, " "), shifted, true
}

func inYears(t time.Time) bool { return t.Year() >= minYear && t.Year() <= maxYear }

// believe replaces a time without a zone that lies ahead of receipt.
func (p *lineParser) believe(at time.Time, text string) (believed time.Time, shifted string) {
	if !p.historic && at.Sub(p.receivedAt) > p.ahead {
		return p.receivedAt, text
	}
	return at, ""
}

var weekdays = []string{"Mon ", "Tue ", "Wed ", "Thu ", "Fri ", "Sat ", "Sun "}

func withoutWeekday(line string) (rest string, had bool) {
	for _, day := range weekdays {
		if rest, ok := strings.CutPrefix(line, day); ok {
			return rest, true
		}
	}
	return line, false
}

func isDate(s string) bool {
	return len(s) > 10 && s[0]-'0' <= 9 && s[4] == '-' && s[7] == '-' && (s[10] == 'T' || s[10] == ' ')
}

// isoStamp reads an ISO 8601 time, with or without a zone.
func (p *lineParser) isoStamp(line string, weekday bool) (at time.Time, rest, shifted string, ok bool) {
	date, clock := line[:10], line[11:]
	word, rest, _ := strings.Cut(clock, " ")
	word = strings.Replace(word, ",", ".", 1)
	for _, form := range []string{"15:04:05Z07:00", "15:04:05Z0700", "15:04:05Z07"} {
		if at, err := time.Parse("2006-01-02 "+form, date+" "+word); err == nil && inYears(at) {
			return at.UTC(), rest, "", true
		}
	}
	at, err := time.Parse("2006-01-02 15:04:05", date+" "+word)
	if err != nil || !inYears(at) {
		return at, line, "", false
	}
	if weekday { // journald's short-full names the zone
		zone, behind, _ := strings.Cut(rest, " ")
		rest = behind
		if zone == "UTC" || zone == "GMT" {
			return at, rest, "", true
		}
	}
	at, shifted = p.believe(at, date+" "+word)
	return at, rest, shifted, true
}

// unixStamp reads journald's short-unix: seconds with microseconds.
func unixStamp(line string) (at time.Time, rest string, ok bool) {
	word, rest, ok := strings.Cut(line, " ")
	whole, fraction, dotted := strings.Cut(word, ".")
	if !ok || !dotted || len(whole) < 9 || len(whole) > 10 || len(fraction) != 6 {
		return at, line, false
	}
	seconds, err := strconv.ParseUint(whole, 10, 40)
	micros, err2 := strconv.ParseUint(fraction, 10, 32)
	at = time.Unix(int64(seconds), int64(micros)*1000).UTC()
	return at, rest, err == nil && err2 == nil && inYears(at)
}

// cutFraction takes ".123456" off the front.
func cutFraction(s string) (rest string, d time.Duration) {
	if len(s) < 2 || s[0] != '.' {
		return s, 0
	}
	end, scale := 1, time.Second
	for end < len(s) && end < 10 && s[end]-'0' <= 9 {
		scale /= 10
		d += time.Duration(s[end]-'0') * scale
		end++
	}
	return s[end:], d
}
