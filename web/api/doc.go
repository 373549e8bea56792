// Package api is stage 4, for people and programs: the HTTP API under
// /api/v1, its live events and the dashboard.
//
// Input: the registry, incidents, quarantines, rules and history, each behind
// a small interface that this package states and the composition root fills.
// Output: JSON, server-sent events and RFC 9457 problem documents, described
// by one OpenAPI 3.1 document that is made from the Go types. Every operation
// has one row in the access table; an operation without a row is refused.
// Guarantee: an action that answered 2xx has been decided and recorded; a
// failed one changed nothing or says what it changed. It is the only package
// that knows gin and huma.
package api
