package store

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"

	"github.com/ebitengine/purego"
	"golang.org/x/sys/unix"
)

// ChildConfig is what the parent tells the engine process: the flags
// --library, --dir and --port of the hidden verb.
type ChildConfig struct {
	Library string // libchdb.so
	Dir     string // EngineConfig.Dir; its config.xml is the engine's configuration
	Port    int    // of the native protocol on 127.0.0.1
}

// Flags renders the configuration as command line flags.
func (c ChildConfig) Flags() []string {
	return []string{"--library=" + c.Library, "--dir=" + c.Dir, "--port=" + strconv.Itoa(c.Port)}
}

// RunEngine is the body of the engine process: it loads the library, serves
// until standard input ends (the parent closed it or died) or SIGTERM or
// SIGINT arrives, and returns the exit code. Call it before anything else of
// the process has started; the process must exit afterwards.
func RunEngine(cfg ChildConfig) int {
	if err := relayStdin(); err != nil {
		fmt.Fprintln(os.Stderr, "cordon engine:", err)
		return 1
	}
	run, err := loadLibrary(cfg.Library)
	if err != nil {
		fmt.Fprintln(os.Stderr, "cordon engine:", err)
		return 1
	}
	return run([]string{
		"clickhouse",
		"--config-file=" + engineFile(cfg.Dir, configFile),
		"--path=" + engineFile(cfg.Dir, dataDir),
		"--log-level=warning",
		"--listen_host=" + engineHost,
		"--tcp_port=" + strconv.Itoa(cfg.Port),
		"--multiquery",
		// The INSERT blocks until the pipe ends. Its data is read on the client's
		// side, so the user default needs no right to read files.
		"--query=SYSTEM START LISTEN TCP; " +
			"INSERT INTO FUNCTION null('line String') FROM INFILE '/dev/stdin' FORMAT LineAsString",
	})
}

// relayStdin puts a pipe of this process in place of standard input, so that a
// signal can end it as well as the parent.
func relayStdin() error {
	parent, err := unix.Dup(0)
	if err != nil {
		return fmt.Errorf("duplicate standard input: %w", err)
	}
	unix.CloseOnExec(parent)
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	if err := unix.Dup2(int(r.Fd()), 0); err != nil {
		return fmt.Errorf("replace standard input: %w", err)
	}
	if err := r.Close(); err != nil {
		return fmt.Errorf("close pipe: %w", err)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	ended := make(chan struct{})
	go func() {
		in := os.NewFile(uintptr(parent), "stdin")
		_, _ = io.Copy(io.Discard, in) // any end means that the parent is gone
		close(ended)
	}()
	go func() {
		select {
		case <-stop:
		case <-ended:
		}
		_ = w.Close() // ends the engine's INSERT
	}()
	return nil
}

// loadLibrary returns a function that runs clickhouse-local with arguments.
func loadLibrary(path string) (func(args []string) int, error) {
	lib, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_GLOBAL)
	if err != nil {
		return nil, fmt.Errorf("load ClickHouse library: %w", err)
	}
	entry, err := purego.Dlsym(lib, "chdb_query_cmdline")
	if err != nil {
		return nil, fmt.Errorf("%s is not a libchdb that Cordon knows: %w", path, err)
	}
	failure, err := purego.Dlsym(lib, "chdb_result_error")
	if err != nil {
		return nil, fmt.Errorf("%s is not a libchdb that Cordon knows: %w", path, err)
	}
	return func(args []string) int {
		var query func(argc int32, argv **byte) uintptr
		var resultError func(result uintptr) string
		purego.RegisterFunc(&query, entry)
		purego.RegisterFunc(&resultError, failure)
		argv := make([]*byte, len(args)+1)
		for i, a := range args {
			argv[i] = &append([]byte(a), 0)[0]
		}
		result := query(int32(len(args)), &argv[0])
		runtime.KeepAlive(argv)
		if result == 0 {
			return 0
		}
		if text := resultError(result); text != "" {
			fmt.Fprintln(os.Stderr, text)
			return 1
		}
		return 0
	}, nil
}
