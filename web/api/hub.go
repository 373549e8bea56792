package api

import (
	"slices"
	"sync"
	"time"

	"cordon/internal/fleet"
)

const (
	ringSize   = 1024 // events kept for clients that come back
	maxPending = 256  // events that wait for one slow client
)

// event is one live event. A newer one with the same key replaces an older
// one that was not sent yet.
type event struct {
	id   uint64
	key  string
	data any
	// device is what it is about; "" concerns everybody.
	device string
}

// hub hands live events to every open stream. It never waits for a client:
// one that is too slow is told to reload.
type hub struct {
	metrics *metrics
	done    chan struct{}

	mu      sync.Mutex
	closed  bool
	last    uint64
	ring    []event
	clients map[*client]struct{}
	perName map[string]int
}

// client is one open stream.
type client struct {
	name  string
	sees  func(device string) bool // nil: everything
	ready chan struct{}            // holds one token when there is something to send

	mu      sync.Mutex
	pending map[string]event
	reload  bool
}

// newHub starts counting at the clock, so that ids grow over restarts too.
func newHub(clock func() time.Time, m *metrics) *hub {
	return &hub{
		metrics: m, done: make(chan struct{}), last: uint64(clock().UnixMicro()),
		clients: map[*client]struct{}{}, perName: map[string]int{},
	}
}

// publish gives an event to every client.
func (h *hub) publish(key string, data any) { h.about("", key, data) }

// about is publish for an event that concerns one device.
func (h *hub) about(device, key string, data any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last++
	e := event{h.last, key, data, device}
	if len(h.ring) >= ringSize {
		h.ring = slices.Delete(h.ring, 0, len(h.ring)-ringSize+1)
	}
	h.ring = append(h.ring, e)
	for c := range h.clients {
		if c.put(e) {
			h.metrics.dropped.Inc()
		}
	}
}

// join adds a client. since is the id of the last event that it saw, 0 when
// it is new: what it missed is sent again, or it is told to reload.
func (h *hub) join(name string, since uint64, sees func(device string) bool) (*client, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, fleet.Errorf(fleet.CodeUnavailable, "Cordon is stopping")
	}
	if len(h.clients) >= maxStreams || h.perName[name] >= maxStreamsOne {
		return nil, fleet.Errorf(fleet.CodeTooMany, "too many live views are open: at most %d of one operator and %d in all", maxStreamsOne, maxStreams)
	}
	c := &client{name: name, sees: sees, ready: make(chan struct{}, 1), pending: map[string]event{}}
	h.clients[c] = struct{}{}
	h.perName[name]++
	h.metrics.streams.Inc()
	switch {
	case since == 0 || since == h.last:
	case len(h.ring) > 0 && since >= h.ring[0].id-1 && since < h.last:
		for _, e := range h.ring {
			if e.id > since {
				c.put(e)
			}
		}
	default:
		c.overflow()
	}
	return c, nil
}

func (h *hub) leave(c *client) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.clients[c]; !ok {
		return
	}
	delete(h.clients, c)
	if h.perName[c.name]--; h.perName[c.name] == 0 {
		delete(h.perName, c.name)
	}
	h.metrics.streams.Dec()
}

func (h *hub) size() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.clients)
}

// lastID is the id of the newest event.
func (h *hub) lastID() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last
}

// close ends every stream.
func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed {
		h.closed = true
		close(h.done)
	}
}

// put queues an event and says whether the client was too slow.
func (c *client) put(e event) (dropped bool) {
	if c.sees != nil && (e.key == "status" || e.device != "" && !c.sees(e.device)) {
		return false // of the status it makes its own
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reload {
		return false // the reload shows it all
	}
	c.pending[e.key] = e
	if len(c.pending) > maxPending {
		c.reload = true
		clear(c.pending)
		dropped = true
	}
	c.wake()
	return dropped
}

func (c *client) overflow() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reload = true
	c.wake()
}

func (c *client) wake() {
	select {
	case c.ready <- struct{}{}:
	default:
	}
}

// take empties the queue, oldest first.
func (c *client) take() (events []event, reload bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.pending {
		events = append(events, e)
	}
	reload = c.reload
	c.reload = false
	clear(c.pending)
	slices.SortFunc(events, func(a, b event) int { return int(int64(a.id) - int64(b.id)) })
	return events, reload
}
