// Package fleet is Cordon's vocabulary: the words that every stage shares and
// nothing else. It imports only the standard library, so that a stage can
// depend on it without depending on a broker, a database or a web framework.
//
// One word per idea, the same in Go, JSON, SQL and the dashboard: device,
// reading, audit event, actor, rule, finding, incident, decision, quarantine.
// All times are UTC; JSON carries them as RFC 3339.
package fleet
