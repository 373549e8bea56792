// Command cordon watches a fleet of devices and draws a cordon around those
// that go wrong. See ARCHITECTURE.md for the life of one reading.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"cordon/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Main(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
