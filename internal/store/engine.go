package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ClickHouse/ch-go"

	"cordon/internal/fleet"
)

const (
	engineUser   = "cordon"
	engineHost   = "127.0.0.1"
	stopTimeout  = 4 * time.Second  // for a clean end; then the engine is killed
	startTimeout = 2 * time.Minute  // until it answers; large data takes a while to load
	lockTimeout  = 15 * time.Second // for the engine of a killed parent to go away
	backoffMin   = 100 * time.Millisecond
	backoffMax   = 10 * time.Second
	backoffReset = 30 * time.Second // an engine that was up this long starts anew with the shortest wait
)

// EngineConfig says where the engine keeps its data and how it is started.
type EngineConfig struct {
	Dir        string   // data, logs, configuration and password; made with mode 0700
	Library    string   // libchdb.so; "" searches, see EnvLibrary
	Executable string   // runs RunEngine; "" is this program
	Args       []string // before the flags of ChildConfig; nil is {"engine"}
	Port       int      // on 127.0.0.1; 0 keeps the one of the last start, else picks a free one
}

// Engine is an embedded ClickHouse: a child process that is started again when
// it dies, on the same port and the same data.
type Engine struct {
	cfg   EngineConfig
	log   *slog.Logger
	state engineState
	lock  *os.File

	stopping chan struct{}
	done     chan struct{}

	mu       sync.Mutex
	child    *child
	restarts uint64
	detail   string // why it is down; empty while it answers
	stopOnce sync.Once
	stopErr  error
}

// StartEngine starts the engine and returns when it answers. Errors that a
// person can act on are *fleet.Error: library missing, directory in use, port
// in use. The engine runs until Stop, independently of ctx.
func StartEngine(ctx context.Context, cfg EngineConfig, log *slog.Logger) (*Engine, error) {
	e := &Engine{cfg: cfg, log: log, stopping: make(chan struct{}), done: make(chan struct{})}
	if err := e.prepare(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	c, err := e.startPatiently(ctx)
	if err != nil {
		_ = e.lock.Close()
		return nil, err
	}
	e.child = c
	go e.supervise(c)
	return e, nil
}

// prepare finds the library, takes the directory's lock, chooses the port and
// writes the configuration.
func (e *Engine) prepare() (err error) {
	if e.cfg.Executable == "" {
		if e.cfg.Executable, err = os.Executable(); err != nil {
			return fmt.Errorf("find own executable: %w", err)
		}
	}
	if e.cfg.Args == nil {
		e.cfg.Args = []string{"engine"}
	}
	if e.cfg.Library, err = findLibrary(e.cfg.Library, e.cfg.Executable); err != nil {
		return err
	}
	if e.cfg.Dir, err = filepath.Abs(e.cfg.Dir); err != nil {
		return fmt.Errorf("find engine directory: %w", err)
	}
	if err := os.MkdirAll(e.cfg.Dir, 0o700); err != nil {
		return fleet.Errorf(fleet.CodeInvalid, "the directory %s can't be made: %w", e.cfg.Dir, err)
	}
	if e.lock, err = lockDir(e.cfg.Dir); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = e.lock.Close()
		}
	}()
	if e.state, err = loadState(e.cfg.Dir); err != nil {
		return err
	}
	if e.state.Port, err = choosePort(e.cfg.Port, e.state.Port); err != nil {
		return err
	}
	if err := e.state.save(e.cfg.Dir); err != nil {
		return err
	}
	return writeConfig(e.cfg.Dir, e.state.Password)
}

// lockDir keeps a second Cordon away from the same directory. The lock ends
// with the process.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(engineFile(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, inUse(dir)
		}
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return f, nil
}

func inUse(dir string) error {
	return fleet.Errorf(fleet.CodeConflict, "another Cordon is using the data in %s: stop it, or choose another directory with --data", dir)
}

// Ports that Cordon picks from: below those that systems give to outgoing
// connections, one of which could otherwise hold the port when the engine
// comes back.
const (
	firstPort = 20_000
	lastPort  = 32_000
	portTries = 50
)

// choosePort returns a port that is free now: the wanted one or none, else the
// last one, else any.
func choosePort(wanted, last int) (int, error) {
	if wanted != 0 {
		if err := tryPort(wanted); err != nil {
			return 0, fleet.Errorf(fleet.CodeConflict, "port %d of %s for ClickHouse is in use: free it or choose another one: %w", wanted, engineHost, err)
		}
		return wanted, nil
	}
	if last != 0 && tryPort(last) == nil {
		return last, nil
	}
	var err error
	for range portTries {
		port := firstPort + rand.IntN(lastPort-firstPort) //nolint:gosec // no secret
		if err = tryPort(port); err == nil {
			return port, nil
		}
	}
	return 0, fleet.Errorf(fleet.CodeConflict, "no port of %s from %d to %d is free for ClickHouse: %w", engineHost, firstPort, lastPort, err)
}

// tryPort says whether a port is free.
func tryPort(port int) error {
	l, err := net.Listen("tcp4", net.JoinHostPort(engineHost, strconv.Itoa(port))) //nolint:noctx // immediate
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if err := l.Close(); err != nil {
		return fmt.Errorf("close listener: %w", err)
	}
	return nil
}

// startPatiently starts a child; while the engine of a killed parent still
// holds the data, it tries again.
func (e *Engine) startPatiently(ctx context.Context) (*child, error) {
	deadline := time.Now().Add(lockTimeout)
	for {
		c, err := e.startChild(ctx)
		if err == nil || !errors.Is(err, errDataLocked) {
			return c, err
		}
		if time.Now().After(deadline) {
			return nil, inUse(e.cfg.Dir)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("start engine: %w", ctx.Err())
		case <-e.stopping:
			return nil, errStopping
		case <-time.After(200 * time.Millisecond):
		}
	}
}

var (
	errDataLocked = errors.New("data is locked by another engine")
	errStopping   = errors.New("engine is stopping")
)

// child is one run of the engine process.
type child struct {
	cmd     *exec.Cmd
	stdin   io.Closer
	output  *tail
	started time.Time
	exited  chan struct{} // closed when it has ended
}

// startChild starts the process and waits until it answers.
func (e *Engine) startChild(ctx context.Context) (*child, error) {
	flags := ChildConfig{Library: e.cfg.Library, Dir: e.cfg.Dir, Port: e.state.Port}.Flags()
	cmd := exec.CommandContext(context.WithoutCancel(ctx), e.cfg.Executable, append(append([]string(nil), e.cfg.Args...), flags...)...)
	cmd.Dir = e.cfg.Dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the parent
	c := &child{cmd: cmd, output: &tail{}, started: time.Now(), exited: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = c.output, c.output
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("make pipe to engine: %w", err)
	}
	c.stdin = stdin
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start engine: %w", err)
	}
	go func() {
		_ = cmd.Wait() // its state is read from cmd.ProcessState
		close(c.exited)
	}()
	if err := e.waitReady(ctx, c); err != nil {
		c.stop()
		return nil, err
	}
	return c, nil
}

// waitReady returns when the engine answers as Cordon's user.
func (e *Engine) waitReady(ctx context.Context, c *child) error {
	var last error
	for {
		if last = e.ping(ctx); last == nil {
			return nil
		}
		select {
		case <-c.exited:
			return e.explainExit(c)
		case <-e.stopping:
			return errStopping
		case <-ctx.Done():
			return fmt.Errorf("wait for engine: %w (last answer: %w)", ctx.Err(), last)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// ping connects only when the port is open: a refused login is no way to ask.
func (e *Engine) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	client, err := ch.Dial(ctx, ch.Options{
		Address: e.address(), User: engineUser, Password: e.state.Password, ClientName: "cordon",
	})
	if err != nil {
		return fmt.Errorf("connect to engine: %w", err)
	}
	err = client.Ping(ctx)
	if closeErr := client.Close(); err == nil && closeErr != nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("ping engine: %w", err)
	}
	return nil
}

// explainExit turns the last words of a child that never answered into a
// sentence.
func (e *Engine) explainExit(c *child) error {
	words := c.output.String()
	switch {
	case strings.Contains(words, "Cannot lock file"):
		return errDataLocked
	case strings.Contains(words, "Address already in use"):
		return fleet.Errorf(fleet.CodeConflict, "port %d of %s for ClickHouse is in use: free it or choose another one", e.state.Port, engineHost)
	case strings.Contains(words, "No space left on device"):
		return fleet.Errorf(fleet.CodeUnavailable, "the disk that holds %s is full: make room and start again", e.cfg.Dir)
	}
	return fleet.Errorf(fleet.CodeUnavailable, "ClickHouse ended at its start (%s); its log is %s; it said: %s",
		c.cmd.ProcessState, engineFile(e.cfg.Dir, logDir, "engine.log"), lastLines(words, 3))
}

func (e *Engine) address() string { return net.JoinHostPort(engineHost, strconv.Itoa(e.state.Port)) }

// stop ends the child: by closing its input, and by force when that takes too
// long.
func (c *child) stop() (clean bool) {
	_ = c.stdin.Close() // the child may be gone
	select {
	case <-c.exited:
		return true
	case <-time.After(stopTimeout):
	}
	_ = c.cmd.Process.Kill() // the child may be gone
	<-c.exited
	return false
}
