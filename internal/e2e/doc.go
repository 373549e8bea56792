// Package e2e drives the built binary as a user would: real processes, the
// real broker and engine, real TLS connections, kill -9. CORDON_BINARY names
// the binary; without it the tests fail, they do not skip.
package e2e
