package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"cordon/ingest"
)

// process is a real cordon up on a data directory and ports that stay over
// restarts.
type process struct {
	executable, dir string
	flags           []string
	cmd             *exec.Cmd
	ended           chan struct{}
	log             *tail
	ready           struct {
		URL          string `json:"url"`
		NATS         string `json:"nats"`
		MQTT         string `json:"mqtt"`
		ClickHouse   string `json:"clickhouse"`
		CA           string `json:"ca"`
		CLITokenFile string `json:"cli_token_file"`
	}
}

func newProcess(ctx context.Context, executable, dir string) (*process, error) {
	p := &process{executable: executable, dir: filepath.Join(dir, "data")}
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	if err := os.WriteFile(filepath.Join(p.dir, ingest.BenchMarker), nil, 0o600); err != nil {
		return nil, fmt.Errorf("mark data directory: %w", err)
	}
	for _, flag := range []string{"--http", "--nats", "--mqtt"} {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		p.flags = append(p.flags, flag, l.Addr().String())
		_ = l.Close()
	}
	return p, nil
}

// start starts it with faults and waits until it is ready. It may kill itself
// before that: then errKilled.
func (p *process) start(ctx context.Context, faults ingest.BenchFaults) error {
	file := filepath.Join(filepath.Dir(p.dir), "ready.json")
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove ready file: %w", err)
	}
	p.log = &tail{}
	p.cmd = exec.CommandContext(context.WithoutCancel(ctx), p.executable, append([]string{"up", "--data", p.dir, "--ready-file", file}, p.flags...)...)
	p.cmd.Env = append(os.Environ(), "CORDON_BENCH_FAULTS="+faults.String())
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("start cordon: %w", err)
	}
	ended := make(chan struct{})
	p.ended = ended
	go func() {
		_ = p.cmd.Wait() // its state is in p.cmd
		close(ended)
	}()
	deadline := time.After(2 * time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		raw, err := os.ReadFile(file)
		if err == nil {
			if err := json.Unmarshal(raw, &p.ready); err != nil {
				return fmt.Errorf("read ready file: %w", err)
			}
			return nil
		}
		select {
		case <-p.ended:
			if p.killed() {
				return errKilled
			}
			return fmt.Errorf("cordon ended at its start:\n%s", p.log)
		case <-deadline:
			return fmt.Errorf("cordon is not ready after 2 minutes:\n%s", p.log)
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

var errKilled = errors.New("cordon killed itself as told")

// killed says that it ended by SIGKILL.
func (p *process) killed() bool {
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

func (p *process) running() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// kill ends it without warning.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may be gone
	<-p.ended
}

// stop ends it as a person does.
func (p *process) stop() {
	if !p.running() {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(20 * time.Second):
		p.kill()
	}
}

// engine is the process id of its ClickHouse, 0 when there is none now.
func (p *process) engine() int {
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	for _, path := range paths { // a child belongs to the thread that started it
		raw, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		for _, field := range strings.Fields(string(raw)) {
			if pid, err := strconv.Atoi(field); err == nil {
				return pid
			}
		}
	}
	return 0
}

// tail keeps the end of a log.
type tail struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

const tailBytes = 16 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf.Write(b)
	if extra := t.buf.Len() - tailBytes; extra > 0 {
		t.buf.Next(extra)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buf.String()
}
