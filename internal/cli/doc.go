// Package cli is the command line: one struct per verb, parsed by kong.
//
// Verbs that act on a running Cordon go through its HTTP API, with --url,
// --token and --ca or, on the same host, with --data alone. They print tables
// for people and JSON with --json, exit non-zero on failure and say what to
// do next. Flags of the whole program may stand before or after the verb.
package cli
