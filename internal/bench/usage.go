package bench

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ticksPerSecond is USER_HZ, which Linux fixes at 100 for /proc.
const ticksPerSecond = 100

// cpuOf is what a process used of the processors, user and system.
func cpuOf(pid int) (time.Duration, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read processor time: %w", err)
	}
	_, rest, _ := bytes.Cut(raw, []byte(") ")) // the name may hold anything
	fields := strings.Fields(string(rest))
	if len(fields) < 13 {
		return 0, fmt.Errorf("read processor time of %d: %d fields", pid, len(fields))
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read processor time: %w", err)
	}
	system, err := strconv.ParseInt(fields[12], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read processor time: %w", err)
	}
	return time.Duration(user+system) * time.Second / ticksPerSecond, nil
}

// ownCPU is cpuOf of this process, with microseconds.
func ownCPU() (time.Duration, error) {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0, fmt.Errorf("read processor time: %w", err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()), nil
}

// forgetPeak makes peakOf count from now.
func forgetPeak(pid int) error {
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0o600); err != nil {
		return fmt.Errorf("reset peak memory: %w", err)
	}
	return nil
}

// peakOf is the most memory that a process had, in MiB.
func peakOf(pid int) (float64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("read peak memory: %w", err)
	}
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 64)
			if err != nil {
				return 0, fmt.Errorf("read peak memory: %w", err)
			}
			return kib / 1024, nil
		}
	}
	return 0, fmt.Errorf("read peak memory of %d: it is not there", pid)
}

// meter measures a span of work in this process and the engine's.
type meter struct {
	engine    int
	start     time.Time
	own       time.Duration
	engineCPU time.Duration
}

// measured is what a span of work took.
type measured struct {
	took, own, engine time.Duration
	ownPeak           float64
	enginePeak        float64
}

func startMeter(engine int) (*meter, error) {
	m := &meter{engine: engine}
	for _, pid := range []int{os.Getpid(), engine} {
		if err := forgetPeak(pid); err != nil {
			return nil, err
		}
	}
	var err error
	if m.engineCPU, err = cpuOf(engine); err != nil {
		return nil, err
	}
	if m.own, err = ownCPU(); err != nil {
		return nil, err
	}
	m.start = time.Now()
	return m, nil
}

func (m *meter) stop() (out measured, err error) {
	out.took = time.Since(m.start)
	own, err := ownCPU()
	if err != nil {
		return out, err
	}
	engine, err := cpuOf(m.engine)
	if err != nil {
		return out, err
	}
	out.own, out.engine = own-m.own, engine-m.engineCPU
	if out.ownPeak, err = peakOf(os.Getpid()); err != nil {
		return out, err
	}
	out.enginePeak, err = peakOf(m.engine)
	return out, err
}
