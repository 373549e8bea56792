// Package sigma reads detection rules in Sigma's syntax (sigmahq.io,
// specification 2.1.0): rules about single events and the correlations
// event_count and value_count. It is pure: text in, rules or errors with file
// and line out.
//
// What cannot be evaluated is refused with the reason, never ignored: a rule
// that silently matches nothing is worse than none. docs/sigma.md has the table
// of what is supported; each of its rows is a test of this package.
package sigma
