package gate

import (
	"sync"
	"time"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

// connection is what the gate knows of one connection since the broker asked
// about it.
type connection struct {
	fleet.Connection
	device     string
	serial     string // of the certificate; empty when an earlier gate admitted it
	grant      string // grantOf its children; empty when another gate admitted it
	restricted bool
	open       bool // the callout is not answered yet
	since      time.Time
}

type key struct {
	server string
	cid    uint64
}

func (c *connection) key() key { return key{c.ServerID, c.CID} }

// table holds the connections of every device.
type table struct {
	mu       sync.Mutex
	byKey    map[key]*connection
	byDevice map[string]map[key]*connection
	byHost   map[string]int
}

func newTable() *table {
	return &table{byKey: map[key]*connection{}, byDevice: map[string]map[key]*connection{}, byHost: map[string]int{}}
}

func (t *table) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.byKey)
}

// begin enters a connection whose callout is open.
func (t *table) begin(c connection) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c.open = true
	t.put(&c)
}

func (t *table) put(c *connection) {
	if t.byKey[c.key()] == nil {
		t.byHost[host(c.Address)]++
	}
	t.byKey[c.key()] = c
	if t.byDevice[c.device] == nil {
		t.byDevice[c.device] = map[key]*connection{}
	}
	t.byDevice[c.device][c.key()] = c
}

// answered closes the callout of a connection that was admitted.
func (t *table) answered(k key, restricted bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.byKey[k]; c != nil {
		c.open, c.restricted = false, restricted
	}
}

// granted notes for which children a connection may speak.
func (t *table) granted(k key, grant string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.byKey[k]; c != nil {
		c.grant = grant
	}
}

func (t *table) grant(k key) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.byKey[k]; c != nil {
		return c.grant
	}
	return ""
}

func (t *table) drop(k key) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.remove(k)
}

func (t *table) remove(k key) {
	c := t.byKey[k]
	if c == nil {
		return
	}
	delete(t.byKey, k)
	if h := host(c.Address); t.byHost[h] > 1 {
		t.byHost[h]--
	} else {
		delete(t.byHost, h)
	}
	delete(t.byDevice[c.device], k)
	if len(t.byDevice[c.device]) == 0 {
		delete(t.byDevice, c.device)
	}
}

// from counts the connections from an address.
func (t *table) from(address string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byHost[address]
}

// of copies the connections of a device.
func (t *table) of(device string) []connection {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []connection
	for _, c := range t.byDevice[device] {
		list = append(list, *c)
	}
	return list
}

// pending says whether a callout of the device is open that began before.
func (t *table) pending(device string, before time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.byDevice[device] {
		if c.open && c.since.Before(before) {
			return true
		}
	}
	return false
}

// sync takes over what the brokers list: connections that an earlier gate
// admitted come in, entries older than before that no broker lists go.
func (t *table) sync(live []bus.Live, before time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	listed := make(map[key]bool, len(live))
	for _, l := range live {
		k := key{l.ServerID, l.CID}
		listed[k] = true
		if t.byKey[k] == nil {
			t.put(&connection{Connection: l.Connection, device: l.Device, restricted: l.Restricted, since: l.StartedAt})
		}
	}
	for k, c := range t.byKey {
		if !listed[k] && !c.open && c.since.Before(before) {
			t.remove(k)
		}
	}
}

// serial is the certificate that a connection was admitted on, if known.
func (t *table) serial(k key) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.byKey[k]; c != nil {
		return c.serial
	}
	return ""
}
