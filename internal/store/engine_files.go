package store

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"cordon/internal/fleet"
)

// Names within the engine's directory.
const (
	configFile = "config.xml"
	usersFile  = "users.xml"
	stateFile  = "state.json"
	lockFile   = "lock"
	logDir     = "log"
	dataDir    = "data"
	tmpDir     = "tmp"
)

func engineFile(dir string, name ...string) string {
	return filepath.Join(append([]string{dir}, name...)...)
}

// engineState is what must be the same after a restart.
type engineState struct {
	Password string `json:"password"`
	Port     int    `json:"port"`
}

// loadState reads the state of a directory or makes it.
func loadState(dir string) (engineState, error) {
	var st engineState
	path := engineFile(dir, stateFile)
	text, err := os.ReadFile(path)
	switch {
	case err == nil:
		if err := json.Unmarshal(text, &st); err != nil {
			return st, fleet.Errorf(fleet.CodeInvalid, "%s is damaged: restore it from a backup or remove it, then start again: %w", path, err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return st, fmt.Errorf("read engine state: %w", err)
	}
	if st.Password == "" {
		raw := make([]byte, 24)
		if _, err := rand.Read(raw); err != nil {
			return st, fmt.Errorf("make engine password: %w", err)
		}
		st.Password = hex.EncodeToString(raw)
	}
	return st, nil
}

func (st engineState) save(dir string) error {
	text, err := json.Marshal(st) //nolint:gosec // into a file that only its owner may read
	if err != nil {
		return fmt.Errorf("encode engine state: %w", err)
	}
	return writeSecret(engineFile(dir, stateFile), append(text, '\n'))
}

// writeSecret replaces a file that only its owner may read, all or nothing.
func writeSecret(path string, text []byte) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// The engine's own limits: modest on a laptop, enough for one node.
const (
	engineMemoryBytes   = 4 << 30   // of the whole engine; half the host's memory when that is less
	engineQueryBytes    = 2 << 30   // of one query, unless the query says less
	listenerBytes       = 128 << 20 // of one query of the user default
	engineMarkCache     = 256 << 20
	engineUncompressed  = 64 << 20
	engineConnections   = 256
	engineQueries       = 64
	engineLogMegabytes  = 10
	engineLogFiles      = 3
	enginePartsToDelay  = 1000
	enginePartsToReject = 3000
)

const configXML = `<clickhouse>
  <!-- Written by cordon at every start: changes are lost. -->
  <logger>
    <level>warning</level>
    <log>%[1]s</log>
    <errorlog>%[2]s</errorlog>
    <size>%[3]dM</size>
    <count>%[4]d</count>
  </logger>
  <users_config>%[5]s</users_config>
  <tmp_path>%[6]s/</tmp_path>
  <max_server_memory_usage>%[7]d</max_server_memory_usage>
  <max_server_memory_usage_to_ram_ratio>0.5</max_server_memory_usage_to_ram_ratio>
  <mark_cache_size>%[8]d</mark_cache_size>
  <uncompressed_cache_size>%[9]d</uncompressed_cache_size>
  <max_connections>%[10]d</max_connections>
  <max_concurrent_queries>%[11]d</max_concurrent_queries>
  <background_pool_size>2</background_pool_size>
  <background_schedule_pool_size>4</background_schedule_pool_size>
  <background_common_pool_size>2</background_common_pool_size>
  <background_move_pool_size>1</background_move_pool_size>
  <background_fetches_pool_size>1</background_fetches_pool_size>
  <background_message_broker_schedule_pool_size>1</background_message_broker_schedule_pool_size>
  <background_distributed_schedule_pool_size>1</background_distributed_schedule_pool_size>
  <max_thread_pool_size>200</max_thread_pool_size>
  <merge_tree>
    <parts_to_delay_insert>%[12]d</parts_to_delay_insert>
    <parts_to_throw_insert>%[13]d</parts_to_throw_insert>
    <number_of_free_entries_in_pool_to_execute_mutation>1</number_of_free_entries_in_pool_to_execute_mutation>
    <number_of_free_entries_in_pool_to_lower_max_size_of_merge>1</number_of_free_entries_in_pool_to_lower_max_size_of_merge>
    <number_of_free_entries_in_pool_to_execute_optimize_entire_partition>1</number_of_free_entries_in_pool_to_execute_optimize_entire_partition>
  </merge_tree>
  <shutdown_wait_unfinished>1</shutdown_wait_unfinished>
  <send_crash_reports><enabled>false</enabled></send_crash_reports>
</clickhouse>
`

// usersXML gives Cordon's user everything from loopback addresses and leaves
// default, as which the engine's own session runs, only what starting the
// listener and waiting on the pipe needs.
const usersXML = `<clickhouse>
  <!-- Written by cordon at every start: changes are lost. -->
  <profiles>
    <default>
      <async_insert>0</async_insert>
      <poll_interval>1</poll_interval>
      <max_memory_usage>%[1]d</max_memory_usage>
      <max_threads>%[2]d</max_threads>
    </default>
    <listener>
      <async_insert>0</async_insert>
      <poll_interval>1</poll_interval>
      <max_memory_usage>%[5]d</max_memory_usage>
      <max_threads>1</max_threads>
      <max_concurrent_queries_for_user>4</max_concurrent_queries_for_user>
    </listener>
  </profiles>
  <users>
    <cordon>
      <password_sha256_hex>%[3]s</password_sha256_hex>
      <networks><ip>::1</ip><ip>127.0.0.1</ip></networks>
      <profile>default</profile>
      <quota>default</quota>
    </cordon>
    <default>
      <no_password/>
      <networks><ip>%[4]s</ip></networks>
      <profile>listener</profile>
      <quota>default</quota>
      <grants>
        <query>GRANT SYSTEM LISTEN ON *.*</query>
        <query>GRANT CREATE TEMPORARY TABLE ON *.*</query>
      </grants>
    </default>
  </users>
  <quotas><default/></quotas>
</clickhouse>
`

// writeConfig writes what the engine reads at start.
func writeConfig(dir, password string) error {
	for _, sub := range []string{"", dataDir, logDir, tmpDir} {
		if err := os.MkdirAll(engineFile(dir, sub), 0o700); err != nil {
			return fmt.Errorf("make engine directory: %w", err)
		}
		if err := os.Chmod(engineFile(dir, sub), 0o700); err != nil { //nolint:gosec // a directory
			return fmt.Errorf("close engine directory to others: %w", err)
		}
	}
	sum := sha256.Sum256([]byte(password))
	config := fmt.Sprintf(configXML,
		escape(engineFile(dir, logDir, "engine.log")), escape(engineFile(dir, logDir, "engine.err.log")),
		engineLogMegabytes, engineLogFiles,
		escape(engineFile(dir, usersFile)), escape(engineFile(dir, tmpDir)),
		engineMemoryBytes, engineMarkCache, engineUncompressed, engineConnections, engineQueries,
		enginePartsToDelay, enginePartsToReject)
	users := fmt.Sprintf(usersXML, engineQueryBytes, max(runtime.NumCPU(), 2), hex.EncodeToString(sum[:]), engineHost, listenerBytes)
	if err := writeSecret(engineFile(dir, usersFile), []byte(users)); err != nil {
		return err
	}
	return writeSecret(engineFile(dir, configFile), []byte(config))
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a strings.Builder takes everything
	return b.String()
}

// libraryName is what the npm packages of chDB call the library.
const libraryName = "libchdb.so"

// EnvLibrary names the environment variable that says where the library is.
const EnvLibrary = "CORDON_ENGINE_LIBRARY"

// findLibrary returns the path of the ClickHouse library: the configured one,
// else the first that exists of the environment's, those beside the executable,
// the system's, and those of the source tree around the working directory.
func findLibrary(configured, executable string) (string, error) {
	if configured == "" {
		configured = os.Getenv(EnvLibrary)
	}
	if configured != "" {
		path, err := filepath.Abs(configured)
		if err != nil {
			return "", fmt.Errorf("find ClickHouse library: %w", err)
		}
		if info, err := os.Stat(path); err != nil || info.IsDir() { //nolint:gosec // named by the operator
			return "", fleet.Errorf(fleet.CodeInvalid, "the ClickHouse library %s does not exist: correct --engine-library or %s, or install it with `make engine`", path, EnvLibrary)
		}
		return path, nil
	}
	var looked []string
	for _, pattern := range libraryPlaces(executable) {
		looked = append(looked, pattern)
		found, err := filepath.Glob(pattern)
		if err != nil {
			continue // a directory name with pattern characters
		}
		for _, path := range found {
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
				return path, nil
			}
		}
	}
	return "", fleet.Errorf(fleet.CodeUnavailable,
		"the ClickHouse library %s is missing (looked in %s): install it with `make engine` (npm ci --prefix deploy/engine), name it in %s, or use a server of your own with --clickhouse",
		libraryName, strings.Join(looked, ", "), EnvLibrary)
}

func libraryPlaces(executable string) []string {
	npm := filepath.Join("deploy", "engine", "node_modules", "@chdb", "lib-"+runtime.GOOS+"-"+npmArch()+"*", libraryName)
	var places []string
	if executable != "" {
		if real, err := filepath.EvalSymlinks(executable); err == nil {
			executable = real
		}
		beside := filepath.Dir(executable)
		places = append(places, filepath.Join(beside, libraryName), filepath.Join(beside, npm), filepath.Join(filepath.Dir(beside), npm))
	}
	places = append(places, filepath.Join("/usr/lib/cordon", libraryName))
	dir, err := os.Getwd()
	for err == nil {
		if _, statErr := os.Stat(filepath.Join(dir, "go.mod")); statErr == nil {
			places = append(places, filepath.Join(dir, npm))
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			break
		}
		dir = parent
	}
	return places
}

func npmArch() string {
	if runtime.GOARCH == "amd64" {
		return "x64"
	}
	return runtime.GOARCH
}
