// Package rule is the language of detection: it parses and checks the YAML of
// a rule and compiles its conditions. It is pure: text in, a Rule or an error
// out. An error names file, line, column, what is wrong and why; an unknown
// key is an error.
//
// Conditions are CEL (cel.dev). The part of CEL that rules mostly use
// (comparisons, text tests, and, or, not) is also compiled to Go closures,
// which answer in nanoseconds; anything else runs on the CEL interpreter. Both
// give the same answers, and a test holds them to it.
package rule
