// Package arch holds the rules of the code base as tests: who may import
// whom, what a pure package may not do, and that every package says what it
// is for.
package arch
