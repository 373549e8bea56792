// Package app is the composition root: it builds every part, wires them in
// one straight line, starts them in order and stops them in reverse. It holds
// no behaviour of its own beyond the life of the process.
package app
