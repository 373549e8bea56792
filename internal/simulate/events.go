package simulate

import (
	"fmt"
	"time"

	"cordon/internal/fleet"
)

// Log is what a device writes to its audit log: raw syslog lines (RFC 5424)
// and events that its firmware reports itself.
type Log struct {
	Lines  []byte // each ended by a line feed
	Events []fleet.AuditEvent
}

func (l *Log) empty() bool { return len(l.Lines) == 0 && len(l.Events) == 0 }

// Events is what a device logs from from (inclusive) to to (exclusive).
func (f *Fleet) Events(device int, from, to time.Time) Log {
	var l Log
	if f.Silent(device, from) {
		return l
	}
	d := &f.devices[device]
	for at := from.Truncate(time.Minute); at.Before(to); at = at.Add(time.Minute) {
		d.routine(&l, at, from, to)
	}
	for _, a := range d.attacks {
		switch a.Attack {
		case BruteForce:
			a.bruteForce(d, &l, from, to)
		case Tamper:
			a.tamper(&l, from, to)
		case FirmwareSwap:
			a.firmware(d, &l, from, to)
		}
	}
	return l
}

func within(t, from, to time.Time) bool { return !t.Before(from) && t.Before(to) }

func (l *Log) add(d *device, at time.Time, priority int, program string, pid uint64, format string, args ...any) {
	l.Lines = fmt.Appendf(l.Lines, "<%d>1 %s %s %s %d - - ", priority, at.UTC().Format("2006-01-02T15:04:05.000Z"), d.registration.ID, program, pid)
	l.Lines = fmt.Appendf(l.Lines, format, args...)
	l.Lines = append(l.Lines, '\n')
}

// routine is what maintenance leaves behind: a login now and then.
func (d *device) routine(l *Log, minute, from, to time.Time) {
	h := key(d.seed, 10, uint64(minute.Unix()))
	if uniform(h) > 1.0/240 {
		return
	}
	at := minute.Add(time.Duration(mix(h)%50) * time.Second)
	pid := 1000 + mix(h+1)%30000
	source := fmt.Sprintf("10.20.%d.%d", d.seed%200, 2+mix(h+2)%9)
	for i, text := range []string{
		fmt.Sprintf("Accepted publickey for maintenance from %s port %d ssh2: ED25519 SHA256:5n3Jm0uXk1Y", source, 40000+mix(h+3)%20000),
		"pam_unix(sshd:session): session opened for user maintenance(uid=1001) by (uid=0)",
		"pam_unix(sshd:session): session closed for user maintenance",
	} {
		if t := at.Add(time.Duration(i) * 3 * time.Second); within(t, from, to) {
			l.add(d, t, 86, "sshd", pid, "%s", text)
		}
	}
}

// outside is an address of the documentation ranges (RFC 5737).
func outside(h uint64) string {
	if h%2 == 0 {
		return fmt.Sprintf("203.0.113.%d", 1+mix(h)%250)
	}
	return fmt.Sprintf("198.51.100.%d", 1+mix(h)%250)
}

var guessed = []string{"root", "admin", "pi", "ubuntu", "oracle", "test", "support", "guest"}

func (a *Attack) bruteForce(d *device, l *Log, from, to time.Time) {
	source := outside(a.seed)
	for n := uint64(0); ; n++ {
		at := a.From.Add(time.Duration(n)*1700*time.Millisecond + time.Duration(key(a.seed, n)%900)*time.Millisecond)
		if !at.Before(a.To) || !at.Before(to) {
			return
		}
		if at.Before(from) {
			continue
		}
		user := guessed[key(a.seed, n, 1)%uint64(len(guessed))]
		pid, port := 20000+n, 30000+key(a.seed, n, 2)%30000
		if user == "root" {
			l.add(d, at, 86, "sshd", pid, "Failed password for root from %s port %d ssh2", source, port)
			continue
		}
		l.add(d, at, 86, "sshd", pid, "Failed password for invalid user %s from %s port %d ssh2", user, source, port)
	}
}

func (a *Attack) tamper(l *Log, from, to time.Time) {
	for i, e := range []fleet.AuditEvent{
		{Activity: "tamper", Program: "enclosure", Message: "enclosure opened: tamper switch released", Fields: map[string]string{"sensor": "tamper-switch"}},
		{Activity: "change", Program: "integrity", Message: "file /etc/shadow changed outside of an update", Fields: map[string]string{"path": "/etc/shadow"}},
		{Activity: "change", Program: "integrity", Message: "file /usr/sbin/telemetryd changed outside of an update", Fields: map[string]string{"path": "/usr/sbin/telemetryd"}},
	} {
		e.ObservedAt, e.Class, e.Outcome = a.From.Add(time.Duration(i)*15*time.Second), "integrity", "failure"
		if within(e.ObservedAt, from, to) && e.ObservedAt.Before(a.To) {
			l.Events = append(l.Events, e)
		}
	}
}

func (a *Attack) firmware(d *device, l *Log, from, to time.Time) {
	if !within(a.From, from, to) {
		return
	}
	release := d.registration.Firmware
	l.Events = append(l.Events, fleet.AuditEvent{
		ObservedAt: a.From, Class: "integrity", Activity: "firmware_change", Outcome: "failure", Program: "bootloader",
		Message: fmt.Sprintf("firmware changed from %s to %s-dbg, signature is not valid", release, release),
		Fields:  map[string]string{"from": release, "to": release + "-dbg", "signature": "invalid"},
	})
}
