package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"cordon/internal/agent"
	"cordon/internal/fleet"
	"cordon/internal/simulate/recording"
)

// ReplayCmd plays recorded files as devices.
type ReplayCmd struct {
	Files []string      `arg:"" name:"file" help:"A CSV series with the header timestamp,value, or an authentication log." type:"existingfile"`
	ID    string        `help:"Device id, for a single file; default: the file's name." placeholder:"ID"`
	Year  int           `help:"Year of log times that have none; default: the one that puts them nearest before now." placeholder:"YEAR"`
	Speed float64       `help:"Times real time; 0 is as fast as possible." default:"0" placeholder:"X"`
	Stall time.Duration `help:"Give up when Cordon stores nothing more for this long." default:"5m" placeholder:"DURATION"`
}

// played is one file's line of the result.
type played struct {
	ID      string `json:"id"`
	File    string `json:"file"`
	Records uint64 `json:"records"`
}

// Run checks every file, then plays one after the other and waits until
// Cordon has stored each.
func (c *ReplayCmd) Run(ctx context.Context, g *Globals) error {
	if c.ID != "" && len(c.Files) > 1 {
		return fleet.Errorf(fleet.CodeInvalid, "--id names one device, but there are %d files: leave it out or replay them one by one", len(c.Files))
	}
	if c.Speed < 0 {
		return fleet.Errorf(fleet.CodeInvalid, "--speed %g is negative: use 0 for as fast as possible", c.Speed)
	}
	recordings := make([]*recording.Recording, len(c.Files))
	for i, path := range c.Files {
		r, err := recording.Open(path, c.Year)
		if err != nil {
			return err
		}
		if c.ID != "" {
			r.ID = c.ID
		}
		if err := fleet.CheckDeviceID(r.ID); err != nil {
			return err
		}
		recordings[i] = r
	}
	client, err := deviceClient(g)
	if err != nil {
		return err
	}
	result := make([]played, 0, len(recordings))
	for _, r := range recordings {
		id, err := c.play(ctx, g, client, r)
		if err != nil {
			return err
		}
		result = append(result, played{ID: id, File: r.Path, Records: r.Records})
	}
	return printPlayed(g, result)
}

func printPlayed(g *Globals, result []played) error {
	if g.JSON {
		return json.NewEncoder(g.Out).Encode(map[string]any{"devices": result})
	}
	for _, p := range result {
		fmt.Fprintf(g.Out, "%-32s %10d records of %s\n", p.ID, p.Records, p.File)
	}
	fmt.Fprintf(g.Out, "See what was found: cordon device show %s\n", result[0].ID)
	return nil
}

func (c *ReplayCmd) play(ctx context.Context, g *Globals, client *agent.Client, r *recording.Recording) (string, error) {
	id, token, err := c.register(ctx, g, client, r)
	if err != nil {
		return "", err
	}
	identity, err := agent.NewIdentity(ctx, client, token)
	if err != nil {
		return "", err
	}
	conn, err := agent.Dial(identity, g.Log)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := connected(ctx, conn, identity); err != nil {
		return "", err
	}
	cfg := agent.DefaultSenderConfig()
	cfg.Bytes, cfg.Block = 16<<20, true // the file itself is the buffer
	sender, err := agent.NewSender(cfg, id, conn, g.Log)
	if err != nil {
		return "", err
	}
	running, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- sender.Run(running) }()

	bar := newProgress(g.Err, id, r.Records)
	err = r.Play(ctx, sender, c.Speed, func(n uint64) { bar.set("sent", n) })
	if err == nil {
		err = sender.Wait(ctx)
	}
	stop()
	if err = errors.Join(err, <-done); err != nil {
		return "", err
	}
	return id, c.stored(ctx, client, id, r.Records, bar)
}

// register enrols a historic device. A name of the file's that is taken gets
// a number; an id that the caller chose does not.
func (c *ReplayCmd) register(ctx context.Context, g *Globals, client *agent.Client, r *recording.Recording) (id, token string, err error) {
	const most = 100
	for n := 1; ; n++ {
		id = r.ID
		if n > 1 {
			suffix := "-" + strconv.Itoa(n)
			id = r.ID[:min(len(r.ID), fleet.MaxDeviceID-len(suffix))] + suffix
		}
		token, err = client.Register(ctx, agent.Registration{ID: id, Cohort: "replay", Model: "recording", Historic: true})
		switch {
		case err == nil:
			if n > 1 {
				fmt.Fprintf(g.Err, "device %s exists already, playing %s as %s\n", r.ID, r.Path, id)
			}
			return id, token, nil
		case fleet.CodeOf(err) != fleet.CodeConflict || n == most:
			return "", "", err
		case c.ID != "":
			return "", "", fleet.Errorf(fleet.CodeConflict, "device %s exists already: choose another --id, or leave it out to have a free one chosen", c.ID)
		}
	}
}

// stored waits until Cordon has every record in its tables.
func (c *ReplayCmd) stored(ctx context.Context, client *agent.Client, id string, records uint64, bar *progress) error {
	defer bar.end()
	var last agent.Stored
	moved := time.Now()
	for wait := 50 * time.Millisecond; ; wait = min(wait*3/2, time.Second) {
		got, err := client.Stored(ctx, id)
		if err != nil && fleet.CodeOf(err) != fleet.CodeUnavailable && fleet.CodeOf(err) != fleet.CodeTooMany {
			return err
		}
		if err == nil {
			bar.set("stored", min(got.Total(), records))
			if got.Total() >= records {
				return nil
			}
			if got != last {
				last, moved = got, time.Now()
			}
		}
		if time.Since(moved) > c.Stall {
			return fleet.Errorf(fleet.CodeUnavailable,
				"%s: the broker took all %d records, but Cordon stored %d readings, %d audit events and %d dead letters and nothing more for %s: see cordon doctor",
				id, records, last.Readings, last.AuditEvents, last.DeadLetters, c.Stall)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// connected waits for the first connection, so that an unreachable broker is
// said at once instead of being tried for ever.
func connected(ctx context.Context, conn *nats.Conn, identity *agent.Identity) error {
	const patience = 20 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	up := conn.StatusChanged(nats.CONNECTED)
	if conn.IsConnected() {
		return nil
	}
	select {
	case <-up:
		return nil
	case <-ctx.Done():
		return fleet.Errorf(fleet.CodeUnavailable, "device %s could not connect to the broker at %s within %s: %v", identity.Device, identity.NATS, patience, conn.LastError())
	}
}
