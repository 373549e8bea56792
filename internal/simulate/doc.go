// Package simulate is a fleet that does not exist: cameras, meters, gateways
// and controllers at five sites, with daily rhythms in local time, noise and
// levels of their own, and labelled attacks on some of them.
//
// The generator (Fleet) is pure: what a device measures at an instant depends
// only on seed, device and instant, so the same seed gives the same bytes in
// any order. The driver (Driver) enrols the devices and streams them over one
// real mTLS connection each. Truth says which device was attacked how, from
// when to when, so that a detector can be scored.
package simulate
