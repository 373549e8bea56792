package recording

import (
	"context"
	"fmt"
	"time"

	"cordon/internal/fleet"
)

// Sender takes messages of one device; agent.Sender is one. Its methods wait
// when it has enough.
type Sender interface {
	Telemetry(ctx context.Context, readings []fleet.Reading) error
	Syslog(ctx context.Context, lines []byte, year int) error
}

// Size of one message.
const (
	batchRecords = 500
	batchBytes   = 200 << 10
	batchDelay   = 200 * time.Millisecond // of paced playing
)

// Play hands every record to the sender: as fast as it takes them with speed
// 0, else at speed times real time. sent is called with the number of records
// handed over so far.
func (r *Recording) Play(ctx context.Context, to Sender, speed float64, sent func(uint64)) error {
	p := player{r: r, to: to, speed: speed, sent: sent}
	err := r.Each(func(rec Record) error {
		if err := p.pace(ctx, rec.At); err != nil {
			return err
		}
		if p.full(rec) {
			if err := p.flush(ctx); err != nil {
				return err
			}
		}
		p.add(rec)
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	return p.flush(ctx)
}

type player struct {
	r     *Recording
	to    Sender
	speed float64
	sent  func(uint64)

	readings []fleet.Reading
	lines    []byte
	count    int
	year     int
	total    uint64
	first    time.Time // recorded time of the first record
	start    time.Time // when it was played
	opened   time.Time // when the batch got its first record
}

// pace waits until a record recorded at is due, sending what waits meanwhile.
func (p *player) pace(ctx context.Context, at time.Time) error {
	if p.speed <= 0 || at.IsZero() {
		return nil
	}
	if p.first.IsZero() {
		p.first, p.start = at, time.Now()
	}
	due := p.start.Add(time.Duration(float64(at.Sub(p.first)) / p.speed))
	now := time.Now()
	if p.count > 0 && (due.Sub(p.opened) > batchDelay || now.Sub(p.opened) > batchDelay) {
		if err := p.flush(ctx); err != nil {
			return err
		}
	}
	if wait := due.Sub(now); wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (p *player) full(rec Record) bool {
	return p.count >= batchRecords || p.count > 0 && (rec.Year != p.year || len(p.lines)+len(rec.Line) > batchBytes)
}

func (p *player) add(rec Record) {
	if p.count == 0 {
		p.opened, p.year = time.Now(), rec.Year
	}
	p.count++
	if p.r.Metric != "" {
		p.readings = append(p.readings, fleet.Reading{ObservedAt: rec.At, Metric: p.r.Metric, Value: rec.Value})
		return
	}
	p.lines = append(p.lines, rec.Line...)
	p.lines = append(p.lines, '\n')
}

func (p *player) flush(ctx context.Context) error {
	if p.count == 0 {
		return nil
	}
	var err error
	if p.r.Metric != "" {
		err = p.to.Telemetry(ctx, p.readings)
		p.readings = p.readings[:0]
	} else {
		err = p.to.Syslog(ctx, p.lines, p.year)
		p.lines = nil // the sender keeps it
	}
	if err != nil {
		return fmt.Errorf("send %s: %w", p.r.Path, err)
	}
	p.total += uint64(p.count)
	p.count = 0
	if p.sent != nil {
		p.sent(p.total)
	}
	return nil
}
