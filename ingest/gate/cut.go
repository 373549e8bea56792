package gate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

const (
	// The look that confirms comes at least this many times as long after the
	// cut as that took.
	settleFactor = 3
	settleMost   = 100 * time.Millisecond
	settleParts  = 3
	// So often a fence is put anew because a message came behind it.
	fenceTries = 5
)

// violates says whether a quarantine forbids a connection.
func violates(q fleet.Quarantine, restricted bool) bool {
	if !q.Active() {
		return false
	}
	switch q.Level {
	case fleet.Observe:
		return false
	case fleet.Restrict:
		return !restricted
	}
	return true
}

// cut kicks every connection of the table that a quarantine forbids. One whose
// callout is still open goes too: it may have been asked about before the
// decision.
func (e *enforcer) cut(ctx context.Context, q fleet.Quarantine) ([]fleet.Connection, error) {
	e.g.tellDevice(bus.SubjectCommand, q)
	var targets []fleet.Connection
	for _, c := range e.g.table.of(q.Device) {
		if violates(q, c.restricted && !c.open) {
			targets = append(targets, c.Connection)
		}
	}
	kicked, err := e.g.kick(ctx, q.Device, targets, true)
	more, gatewayErr := e.cutGateway(ctx, q)
	return merge(kicked, more), errors.Join(err, gatewayErr)
}

// kick closes connections of a device; silent drops MQTT sessions first, so
// that the broker publishes no will. It returns the connections kicked.
func (g *Gate) kick(ctx context.Context, device string, targets []fleet.Connection, silent bool) ([]fleet.Connection, error) {
	if silent && slices.ContainsFunc(targets, func(c fleet.Connection) bool { return c.Protocol == "mqtt" }) {
		if err := g.deps.Bus.DropSession(ctx, device); err != nil {
			return nil, err
		}
	}
	var kicked []fleet.Connection
	var errs []error
	for _, c := range targets {
		err := g.deps.Bus.Kick(ctx, c.ServerID, c.CID)
		if errors.Is(err, bus.ErrGone) && silent && c.Protocol == "mqtt" {
			err = nil // dropping its session cut it
			g.table.drop(key{c.ServerID, c.CID})
		}
		if errors.Is(err, bus.ErrGone) {
			g.table.drop(key{c.ServerID, c.CID}) // it was never admitted, so no event said so
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		g.metrics.kick()
		kicked = append(kicked, c)
	}
	return kicked, errors.Join(errs...)
}

// confirm asks the brokers until all of them list no connection that the
// quarantine forbids and no callout from before is open. Meanwhile it kicks
// what they list. It returns the proof and what it kicked.
//
// A broker takes a connection off its list before the last message that it has
// read from it is handled. Hence the pause between a kick and the look that
// counts, and the barriers within it. The look comes behind the pause, so it
// also sees what was admitted by another gate's callout that was open at the
// cut.
func (e *enforcer) confirm(ctx context.Context, q fleet.Quarantine, since time.Time, watch *stopwatch) ([]fleet.BrokerProof, []fleet.Connection, error) {
	deadline := time.Now().Add(e.g.cfg.ConfirmWithin)
	took := time.Since(since) // by the cut: a measure of how busy the brokers are
	var kicked []fleet.Connection
	for {
		if q.Level != fleet.Observe {
			if err := pause(ctx, min(max(e.g.cfg.Settle, settleFactor*took), settleMost)); err != nil {
				return nil, kicked, err
			}
		}
		if current := e.current(q.Device); current.q.ID != q.ID || !current.q.Active() {
			return nil, kicked, errMoved
		}
		watch.lap("settled")
		start := time.Now()
		proofs, more, err := e.look(ctx, q, since)
		took = max(took, time.Since(start)/settleFactor)
		kicked = merge(kicked, more)
		if err == nil {
			return proofs, kicked, nil
		}
		if time.Now().After(deadline) {
			return nil, kicked, err
		}
	}
}

// pause waits in parts, each followed by a barrier.
func pause(ctx context.Context, wait time.Duration) error {
	for range settleParts {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait / settleParts):
		}
		barrier()
	}
	return nil
}

// barrier returns after every running goroutine of this process has come to a
// safe point. On a machine with more work than cores, the thread that handles
// the last message of a cut connection may stand still for tens of
// milliseconds while all others run; no pause that is short on an idle machine
// is long enough then. Reading the memory statistics stops the world, and so
// waits for that thread. With an external broker it is of no use and costs
// some microseconds.
func barrier() {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
}

// fence marks on the FLEET log where the device fell silent: whatever a reader
// finds of it behind the record came from a connection that no longer was. A
// log that takes no record takes no message of the device either, so that is
// no reason to stay unconfirmed.
//
// A last message that came behind the fence all the same means that the broker
// was still handling it: the fence is put anew once it had more time.
func (e *enforcer) fence(ctx context.Context, q fleet.Quarantine) {
	ctx, cancel := context.WithTimeout(ctx, readWait)
	defer cancel()
	for try := range fenceTries {
		seq, err := e.putFence(ctx, q, try)
		if err == nil && q.Level == fleet.Observe {
			return
		}
		barrier()
		last := uint64(0)
		if err == nil {
			last, err = e.lastOf(ctx, q.Device)
		}
		switch {
		case err != nil:
			e.g.deps.Log.Warn("confirmation is not on the log", "device", q.Device, "error", err)
			return
		case last < seq:
			return
		}
		if err := pause(ctx, e.g.cfg.Settle*settleFactor); err != nil {
			return
		}
	}
}

func (e *enforcer) putFence(ctx context.Context, q fleet.Quarantine, try int) (uint64, error) {
	data, err := json.Marshal(fleet.Control{Quarantine: &fleet.QuarantineChange{
		Device: q.Device, ID: q.ID, Active: true, Level: q.Level, State: fleet.Confirmed,
	}})
	if err != nil {
		return 0, fmt.Errorf("encode fence: %w", err)
	}
	id := e.g.deps.Bus.MsgID(fmt.Sprintf("fence.%s.%d", q.ID, try))
	ack, err := e.g.deps.Bus.Fleet.Publish(ctx, bus.SubjectControl+".quarantine."+q.Device, data, jetstream.WithMsgID(id))
	if err != nil {
		return 0, fmt.Errorf("publish fence: %w", err)
	}
	return ack.Sequence, nil
}

// lastOf is the place of a device's last message on the log, 0 without any.
func (e *enforcer) lastOf(ctx context.Context, device string) (uint64, error) {
	stream, err := e.g.deps.Bus.Fleet.Stream(ctx, bus.StreamFleet)
	if err != nil {
		return 0, fmt.Errorf("open stream: %w", err)
	}
	last := uint64(0)
	for _, subject := range []string{bus.SubjectTelemetry, bus.SubjectAudit, bus.SubjectPosture} {
		msg, err := stream.GetLastMsgForSubject(ctx, subject+"."+device)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("read last message: %w", err)
		}
		last = max(last, msg.Sequence)
	}
	return last, nil
}

// look asks every broker once. The error says what is still in the way.
func (e *enforcer) look(ctx context.Context, q fleet.Quarantine, since time.Time) ([]fleet.BrokerProof, []fleet.Connection, error) {
	users := []string{bus.User(q.Device, false)}
	if q.Level == fleet.Isolate && fleet.DecisionNumber(q.ID) > 1 {
		users = append(users, bus.User(q.Device, true)) // it may have been restricted before
	}
	live, proofs, err := e.g.deps.Bus.LiveUsers(ctx, users...)
	if err != nil {
		return nil, nil, err
	}
	var bad []fleet.Connection
	for _, l := range live {
		if violates(q, l.Restricted) {
			bad = append(bad, l.Connection)
		}
	}
	proofs = e.g.peers.expect(proofs)
	var silent []string
	for i := range proofs {
		proofs[i].Connections = 0
		for _, c := range bad {
			if c.ServerID == proofs[i].ServerID {
				proofs[i].Connections++
			}
		}
		if !proofs[i].Answered {
			silent = append(silent, proofs[i].ServerName)
		}
	}
	kicked, err := e.g.kick(ctx, q.Device, bad, true)
	through, more, pending, gatewayErr := e.lookGateway(ctx, q, since)
	kicked = merge(kicked, more)
	switch {
	case err != nil || gatewayErr != nil:
		return proofs, kicked, errors.Join(err, gatewayErr)
	case len(through) > 0 || pending:
		return proofs, kicked, errors.New("its gateway is still connected on permissions from before")
	case len(silent) > 0:
		return proofs, kicked, fmt.Errorf("no answer from broker %s", strings.Join(silent, ", "))
	case len(bad) > 0:
		return proofs, kicked, fmt.Errorf("%d connections are still open", len(bad))
	case e.g.table.pending(q.Device, since):
		return proofs, kicked, errors.New("a connection from before the decision is still being admitted")
	}
	return proofs, kicked, nil
}

// unrestrict ends what a released restriction left behind: connections on
// restricted permissions are kicked so that the device comes back with its
// own.
func (e *enforcer) unrestrict(ctx context.Context, device string) {
	live, _, err := e.g.deps.Bus.Live(ctx, device)
	if err != nil {
		e.g.deps.Log.Warn("restricted connections are not ended yet", "device", device, "error", err)
		return // reconciling does it
	}
	if q := e.current(device).q; q.Active() && q.Level != fleet.Observe {
		return
	}
	var targets []fleet.Connection
	for _, l := range live {
		if l.Restricted {
			targets = append(targets, l.Connection)
		}
	}
	if _, err := e.g.kick(ctx, device, targets, false); err != nil {
		e.g.deps.Log.Warn("restricted connections are not ended yet", "device", device, "error", err)
	}
	if gateway := e.g.devices.gatewayOf(device); gateway != "" {
		e.g.devices.regrantNow(ctx, gateway)
	}
}

// merge adds connections that are not in the list yet.
func merge(list, more []fleet.Connection) []fleet.Connection {
	for _, c := range more {
		if !slices.ContainsFunc(list, func(o fleet.Connection) bool { return o.ServerID == c.ServerID && o.CID == c.CID }) {
			list = append(list, c)
		}
	}
	return list
}

// reconcileLoop checks every connection at start and now and then: an earlier
// gate's connections enter the table, and what should not be is cut.
func (g *Gate) reconcileLoop(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-g.ready:
	}
	for {
		if err := g.reconcile(ctx); err != nil && ctx.Err() == nil {
			g.deps.Log.Warn("connections were not checked", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(min(g.cfg.Reconcile, g.cfg.FloodEvery)):
		}
	}
}

func (g *Gate) reconcile(ctx context.Context) error {
	before := time.Now().Add(-time.Minute)
	live, proofs, err := g.deps.Bus.Live(ctx, "")
	if err != nil {
		return err
	}
	g.peers.expect(proofs)
	g.table.sync(live, before)
	g.peers.save(ctx)
	g.limits.sample(ctx, live)
	for _, l := range live {
		why, silent := g.objection(l)
		if why == "" {
			continue
		}
		g.deps.Log.Info("connection cut", "device", l.Device, "reason", why, "address", l.Address, "protocol", l.Protocol)
		if _, err := g.kick(ctx, l.Device, []fleet.Connection{l.Connection}, silent); err != nil {
			return err
		}
	}
	return nil
}

// objection says why a live connection must go, "" when it may stay, and
// whether its will must go with it.
func (g *Gate) objection(l bus.Live) (why string, silent bool) {
	q := g.enforcer.current(l.Device).q
	if violates(q, l.Restricted) {
		return string(quarantined), true
	}
	if l.Restricted && (!q.Active() || q.Level != fleet.Restrict) {
		return "released", false
	}
	if why, silent = g.devices.objection(l, g.table.serial(key{l.ServerID, l.CID})); why == "" && g.staleGateway(l) {
		why = "children_changed"
	}
	return why, silent
}
