// Package operator is the people (and programs) who use Cordon: their
// passwords, sessions, roles and API tokens, and the record of what they did.
//
// Passwords are hashed with argon2id; sessions and tokens are random and only
// their SHA-256 is stored. Guessing is slowed by a delay that grows per
// account and per source, and an unknown name costs as much as a wrong
// password. Everything lives in the buckets "operator" and "session", which
// are never copied into history.
package operator
