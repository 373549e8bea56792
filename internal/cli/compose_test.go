package cli

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"

	"cordon/internal/bus"
)

type service struct {
	Image       string            `yaml:"image"`
	Command     []string          `yaml:"command"`
	Environment map[string]string `yaml:"environment"`
	Ports       []string          `yaml:"ports"`
	Volumes     []string          `yaml:"volumes"`
	User        string            `yaml:"user"`
	DependsOn   map[string]struct {
		Condition string `yaml:"condition"`
	} `yaml:"depends_on"`
	Healthcheck struct {
		Test []string `yaml:"test"`
	} `yaml:"healthcheck"`
}

type composition struct {
	Services map[string]service `yaml:"services"`
	Volumes  map[string]any     `yaml:"volumes"`
}

func compose(t *testing.T) composition {
	t.Helper()
	raw, err := os.ReadFile("../../compose.yaml")
	require.NoError(t, err)
	var c composition
	require.NoError(t, yaml.Unmarshal(raw, &c))
	return c
}

// understood parses a command line as the service's container would and
// returns the environment variables that its verb reads.
func understood(t *testing.T, name string, command []string, environment map[string]string) []string {
	t.Helper()
	for key, value := range environment {
		t.Setenv(key, value)
	}
	file, err := loadSettings("")
	require.NoError(t, err)
	r := &root{}
	parser, err := newParser(r, file, &bytes.Buffer{}, &bytes.Buffer{}, func(int) {})
	require.NoError(t, err)
	parsed, err := parser.Parse(command)
	require.NoError(t, err, "service %s: cordon %s", name, strings.Join(command, " "))
	var read []string
	for _, group := range parsed.Selected().AllFlags(false) {
		for _, flag := range group {
			read = append(read, flag.Envs...)
		}
	}
	return read
}

func TestCompose_agreesWithWhatCordonReads(t *testing.T) {
	c := compose(t)
	for name, s := range c.Services {
		for _, volume := range s.Volumes {
			source, _, _ := strings.Cut(volume, ":")
			require.Contains(t, c.Volumes, source, "service %s mounts an undeclared volume", name)
		}
		for needed, how := range s.DependsOn {
			require.Contains(t, c.Services, needed)
			if how.Condition == "service_healthy" {
				require.NotEmpty(t, c.Services[needed].Healthcheck.Test, "service %s waits for the health of %s, which has no check", name, needed)
			}
		}
		if s.Image != "cordon" {
			require.NotContains(t, s.Image, "latest")
			require.Contains(t, s.Image, ":", "image of %s is pinned", name)
			continue
		}
		t.Run(name, func(t *testing.T) {
			read := understood(t, name, s.Command, s.Environment)
			for key := range s.Environment {
				require.Contains(t, read, key, "service %s sets a variable that cordon %s does not read", name, s.Command[0])
			}
		})
	}
}

func TestCompose_everyRoleRunsOnce(t *testing.T) {
	c := compose(t)
	var roles []string
	for name, s := range c.Services {
		if s.Image == "cordon" && s.Command[0] == "serve" {
			require.Equal(t, []string{"serve", "--role", name}, s.Command)
			roles = append(roles, name)
			require.Equal(t, "/usr/local/bin/cordon", s.Healthcheck.Test[1])
			understood(t, name, s.Healthcheck.Test[2:], s.Environment)
		}
	}
	slices.Sort(roles)
	require.Equal(t, []string{"alert", "detect", "ingest", "web"}, roles)
}

func TestCompose_brokerIsConfiguredByInit(t *testing.T) {
	c := compose(t)
	init := c.Services["init"]
	require.Equal(t, []string{"init", "--keys", "/keys"}, init.Command[:3])
	keys, err := bus.NewKeys()
	require.NoError(t, err)
	conf, err := bus.ExternalConfig(bus.ServerConfig{Name: "n", Dir: "/data", Keys: keys, Limits: bus.DefaultLimits()}, "/keys")
	require.NoError(t, err)
	nats := c.Services["nats"]
	require.Equal(t, []string{"-c", "/keys/nats.conf"}, nats.Command)
	for _, port := range nats.Ports {
		_, inside, _ := strings.Cut(port, ":")
		require.Contains(t, conf, "0.0.0.0:"+inside)
	}
	require.Contains(t, nats.Volumes, "nats:/data", "JetStream's files outlive the container")
	require.Contains(t, conf, "127.0.0.1:8222", "the health check's port is in the configuration")
	require.Contains(t, nats.Healthcheck.Test[len(nats.Healthcheck.Test)-1], "127.0.0.1:8222")
	require.Contains(t, init.Command, "nats", "the broker's certificate has the name by which roles connect")
	require.Contains(t, init.Command, "web")
}

func TestCompose_webIsReachable(t *testing.T) {
	web := compose(t).Services["web"]
	_, inside, _ := strings.Cut(web.Ports[0], ":")
	require.Equal(t, "0.0.0.0:"+inside, web.Environment["CORDON_HTTP"])
	require.Contains(t, web.Environment, "CORDON_DATA", "the one-time password needs a place")
}

func TestCompose_clickHouseAgrees(t *testing.T) {
	c := compose(t)
	server := c.Services["clickhouse"].Environment
	dsn := c.Services["ingest"].Environment["CORDON_CLICKHOUSE"]
	require.Contains(t, dsn, "//"+server["CLICKHOUSE_USER"]+":"+server["CLICKHOUSE_PASSWORD"]+"@clickhouse:9000/"+server["CLICKHOUSE_DB"])
}
