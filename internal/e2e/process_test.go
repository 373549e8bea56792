package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// ready mirrors the ready file.
type ready struct {
	URL               string `json:"url"`
	NATS              string `json:"nats"`
	MQTT              string `json:"mqtt"`
	ClickHouse        string `json:"clickhouse"`
	CA                string `json:"ca"`
	AdminUser         string `json:"admin_user"`
	AdminPasswordFile string `json:"admin_password_file"`
	CLITokenFile      string `json:"cli_token_file"`
}

// cordon is one running `cordon up`.
type cordon struct {
	t     *testing.T
	dir   string
	args  []string
	cmd   *exec.Cmd
	ended chan struct{} // closed when the process has ended
	log   *bytes.Buffer
	ready ready
	http  *http.Client
	token string
}

func binary(t *testing.T) string {
	t.Helper()
	path := os.Getenv("CORDON_BINARY")
	require.NotEmpty(t, path, "CORDON_BINARY must name the built binary; say: make e2e")
	return path
}

// up starts Cordon on a new data directory and free ports and waits until it
// is ready.
func up(t *testing.T, args ...string) *cordon {
	t.Helper()
	c := &cordon{t: t, dir: filepath.Join(t.TempDir(), "data")}
	// The ports stay over restarts, so that devices find Cordon again.
	for _, flag := range []string{"--http", "--nats", "--mqtt"} {
		c.args = append(c.args, flag, freePort(t))
	}
	c.args = append(c.args, args...)
	t.Cleanup(func() {
		if c.running() {
			c.stop()
		}
		if t.Failed() {
			lines := strings.Split(c.log.String(), "\n")
			t.Logf("the end of Cordon's log:\n%s", strings.Join(lines[max(0, len(lines)-60):], "\n"))
		}
	})
	c.start()
	return c
}

func (c *cordon) start() {
	c.t.Helper()
	file := filepath.Join(c.t.TempDir(), "ready.json")
	args := append([]string{"up", "--data", c.dir, "--ready-file", file}, c.args...)
	c.log = &bytes.Buffer{}
	c.cmd = exec.Command(binary(c.t), args...)
	c.cmd.Stdout, c.cmd.Stderr = c.log, c.log
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(c.t, c.cmd.Start())
	c.ended = make(chan struct{})
	go func() {
		defer close(c.ended)
		_ = c.cmd.Wait()
	}()
	deadline := time.After(60 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-c.ended:
			c.t.Fatalf("cordon up ended before it was ready\n%s", c.log)
		case <-deadline:
			c.t.Fatalf("cordon up was not ready within 60 s\n%s", c.log)
		case <-tick.C:
		}
		raw, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		require.NoError(c.t, json.Unmarshal(raw, &c.ready))
		break
	}
	c.connect()
}

// connect reads the local token and makes the client for the API.
func (c *cordon) connect() {
	c.t.Helper()
	token, err := os.ReadFile(c.ready.CLITokenFile)
	require.NoError(c.t, err)
	c.token = strings.TrimSpace(string(token))
	c.http = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: c.pool(), MinVersion: tls.VersionTLS12}}}
}

func (c *cordon) pool() *x509.CertPool {
	pem, err := os.ReadFile(c.ready.CA)
	require.NoError(c.t, err)
	pool := x509.NewCertPool()
	require.True(c.t, pool.AppendCertsFromPEM(pem))
	return pool
}

func (c *cordon) signal(sig syscall.Signal) { _ = c.cmd.Process.Signal(sig) }

func (c *cordon) running() bool {
	select {
	case <-c.ended:
		return false
	default:
		return c.cmd != nil
	}
}

func (c *cordon) await() {
	c.t.Helper()
	select {
	case <-c.ended:
	case <-time.After(30 * time.Second):
		c.t.Fatalf("cordon did not end\n%s", c.log)
	}
}

// stop ends Cordon as a user does and says how long it took.
func (c *cordon) stop() time.Duration {
	c.t.Helper()
	begin := time.Now()
	c.signal(syscall.SIGTERM)
	c.await()
	return time.Since(begin)
}

// kill ends Cordon without warning.
func (c *cordon) kill() {
	c.t.Helper()
	c.signal(syscall.SIGKILL)
	c.await()
}

// freePort is a loopback address that nobody listens on.
func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	return listener.Addr().String()
}

// enginePID finds the engine, the only child of the running Cordon.
func (c *cordon) enginePID() int {
	c.t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", c.cmd.Process.Pid, c.cmd.Process.Pid))
	require.NoError(c.t, err)
	if fields := strings.Fields(string(raw)); len(fields) > 0 {
		pid, err := strconv.Atoi(fields[0])
		require.NoError(c.t, err)
		return pid
	}
	// A child belongs to the thread that started it.
	all, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", c.cmd.Process.Pid))
	require.NoError(c.t, err)
	for _, path := range all {
		raw, err := os.ReadFile(path)
		require.NoError(c.t, err)
		if fields := strings.Fields(string(raw)); len(fields) > 0 {
			pid, err := strconv.Atoi(fields[0])
			require.NoError(c.t, err)
			return pid
		}
	}
	return 0
}

// run runs a client verb against this Cordon and returns what it printed.
func (c *cordon) run(args ...string) []byte {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 2*time.Minute)
	defer cancel()
	args = append(args, "--url", c.ready.URL, "--token", c.token, "--ca", c.ready.CA)
	if c.cmd != nil {
		args = append(args[:len(args)-6], "--data", c.dir)
	}
	cmd := exec.CommandContext(ctx, binary(c.t), args...)
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	require.NoError(c.t, cmd.Run(), "cordon %s\n%s%s", strings.Join(args, " "), &out, &problems)
	return out.Bytes()
}

// runJSON is run with --json, decoded.
func (c *cordon) runJSON(out any, args ...string) {
	c.t.Helper()
	raw := c.run(append(args, "--json")...)
	require.NoError(c.t, json.Unmarshal(raw, out), "%s", raw)
}

// call is one API request with the local token; out may be nil.
func (c *cordon) call(method, path string, in, out any) int {
	c.t.Helper()
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		require.NoError(c.t, err)
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.ready.URL+"/api/v1"+path, body)
	require.NoError(c.t, err)
	req.Header.Set("Authorization", "Bearer "+c.token)
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	answer, err := c.http.Do(req)
	require.NoError(c.t, err)
	defer answer.Body.Close()
	raw, err := io.ReadAll(answer.Body)
	require.NoError(c.t, err)
	if out != nil && answer.StatusCode < 300 {
		require.NoError(c.t, json.Unmarshal(raw, out), "%s %s: %s", method, path, raw)
	}
	return answer.StatusCode
}
