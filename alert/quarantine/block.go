package quarantine

import (
	"cmp"
	"context"
	"encoding/hex"
	"net"
	"net/netip"
	"slices"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

const (
	blockPrefix = "block."
	blockMost   = 10_000 // outside actors kept; the ones seen longest ago give way
)

// block takes the outside actor of a finding into the block list. Such a
// finding never holds the device that it is about.
func (s *Service) block(ctx context.Context, f fleet.Finding) error {
	if f.Evidence != fleet.Outside || f.Cleared || f.Mode != fleet.Alert && f.Mode != fleet.Armed {
		return nil
	}
	address, ok := s.blockable(f.Actor)
	now := s.deps.Clock().UTC()
	if !ok || now.Sub(f.ReceivedAt) > s.cfg.BlockFor {
		return nil
	}
	s.mu.Lock()
	known, listed := s.blocks[address]
	full := len(s.blocks) >= blockMost
	s.mu.Unlock()
	if listed && known.Device == f.Device && !f.ReceivedAt.After(known.Last) {
		return nil // delivered again
	}
	if !listed && full {
		s.dropOldest(ctx)
	}
	kv, err := s.deps.Bus.Bucket(ctx, bus.BucketGuard)
	if err != nil {
		return err
	}
	b, err := change(ctx, kv, blockKey(address), func(b *fleet.Block, exists bool) (bool, error) {
		if !exists || now.After(b.Until) {
			*b = fleet.Block{Address: address, Since: f.ReceivedAt}
		}
		if b.Device != f.Device {
			b.Devices++
		}
		b.Why, b.Device, b.Last, b.Until = f.RuleID, f.Device, f.ReceivedAt, f.ReceivedAt.Add(s.cfg.BlockFor)
		return true, nil
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.blocks[address] = b
	s.mu.Unlock()
	return nil
}

// blockable says whether a text is an address that may be blocked.
func (s *Service) blockable(text string) (string, bool) {
	if host, _, err := net.SplitHostPort(text); err == nil {
		text = host
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return "", false
	}
	a = a.Unmap().WithZone("")
	if a.IsLoopback() || a.IsUnspecified() || a.IsMulticast() || a.IsLinkLocalUnicast() {
		return "", false
	}
	if slices.ContainsFunc(s.cfg.NeverBlock, func(p netip.Prefix) bool { return p.Contains(a) }) {
		return "", false
	}
	return a.String(), true
}

func blockKey(address string) string { return blockPrefix + hex.EncodeToString([]byte(address)) }

func (s *Service) dropOldest(ctx context.Context) {
	s.mu.Lock()
	var oldest fleet.Block
	for _, b := range s.blocks {
		if oldest.Address == "" || b.Last.Before(oldest.Last) {
			oldest = b
		}
	}
	delete(s.blocks, oldest.Address)
	s.mu.Unlock()
	kv, err := s.deps.Bus.Bucket(ctx, bus.BucketGuard)
	if err == nil {
		err = kv.Delete(ctx, blockKey(oldest.Address))
	}
	if err != nil {
		s.deps.Log.Warn("address was not taken off the block list", "address", oldest.Address, "error", err)
	}
}

// Blocklist is what firewalls should block, by address: outside actors of the
// last findings, and where restricted and isolated devices were cut.
func (s *Service) Blocklist() []fleet.Block {
	now := s.deps.Clock()
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[string]fleet.Block{}
	for _, b := range s.blocks {
		if now.Before(b.Until) {
			all[b.Address] = b
		}
	}
	for _, h := range s.entries {
		if !h.q.Active() || h.q.Level == fleet.Observe {
			continue
		}
		for _, c := range h.q.Proof.Kicked {
			address, ok := s.blockable(c.Address)
			if _, listed := all[address]; ok && !listed {
				all[address] = fleet.Block{
					Address: address, Why: "quarantine", Device: h.q.Device, Devices: 1, Since: h.q.RequestedAt, Last: h.q.RequestedAt, Until: h.q.Until,
				}
			}
		}
	}
	list := make([]fleet.Block, 0, len(all))
	for _, b := range all {
		list = append(list, b)
	}
	slices.SortFunc(list, func(a, b fleet.Block) int { return cmp.Compare(a.Address, b.Address) })
	return list
}
