// Package threshold holds the two counting machines behind rules: a latch
// that raises after N remarkable readings in a row and clears after M quiet
// ones, and an episode that counts events in a sliding window. It is pure and
// its state is plain data.
package threshold
