package ingest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

// BenchMarker is the file in a data directory that says: this Cordon belongs
// to a bench and may be killed.
const BenchMarker = "bench-marker"

// BenchFaults is what a bench tells a Cordon that it started: at which step of
// the block protocol the process is to kill itself, and how large blocks are.
type BenchFaults struct {
	Point string // one of the Fault constants; empty: none
	After int    // kill when the point is reached this many times
	Rows  int    // Config.MaxRows; 0: as it is
}

// String is the form that Apply reads.
func (f BenchFaults) String() string {
	return fmt.Sprintf("point=%s,after=%d,rows=%d", f.Point, f.After, f.Rows)
}

// ApplyBench changes a configuration as BenchFaults.String says. It refuses
// unless the bench put its marker into the data directory.
func (c *Config) ApplyBench(dir, spec string) error {
	if _, err := os.Stat(filepath.Join(dir, BenchMarker)); err != nil {
		return fleet.Errorf(fleet.CodeInvalid, "faults are for cordon bench, and %s is not a bench's data: unset CORDON_BENCH_FAULTS", dir)
	}
	var f BenchFaults
	for part := range strings.SplitSeq(spec, ",") {
		name, value, _ := strings.Cut(part, "=")
		var err error
		switch name {
		case "point":
			f.Point = value
		case "after":
			f.After, err = strconv.Atoi(value)
		case "rows":
			f.Rows, err = strconv.Atoi(value)
		default:
			err = fmt.Errorf("%q is not known", name)
		}
		if err != nil {
			return fleet.Errorf(fleet.CodeInvalid, "faults %q: %w", spec, err)
		}
	}
	if f.Rows > 0 {
		c.MaxRows = f.Rows
	}
	if f.Point == "" {
		return nil
	}
	var reached atomic.Int64
	c.Fault = func(stream, point string) error {
		if stream == bus.StreamFleet && point == f.Point && reached.Add(1) == int64(f.After) {
			return syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
		return nil
	}
	return nil
}
