package bus

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"text/template"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// ServerConfig describes the embedded broker.
type ServerConfig struct {
	Name      string      // server_name, unique in a cluster
	Dir       string      // JetStream's file store
	NATS      string      // listen address host:port, port 0 picks one; empty: in-process clients only
	MQTT      string      // the same for MQTT 3.1.1
	WebSocket string      // the same for NATS over WebSocket; empty: none
	Cluster   string      // route listen address; empty: a broker alone
	RouteTLS  *tls.Config // between the brokers of a cluster; nil is for loopback only
	Routes    []string    // of the other brokers of the cluster, nats-route://host:port
	TLS       *tls.Config
	Keys      Keys
	Limits    Limits
	// StoreKey encrypts the files of JetStream at rest; empty: they are not. A
	// store that was not encrypted becomes so.
	StoreKey string
}

// configText is the broker's configuration as cordon up runs it and as
// deploy/nats/nats.conf has it for an external server. Listeners and TLS are
// not in it: in process they are set in Go.
var configText = template.Must(template.New("nats").Parse(`server_name: {{printf "%q" .Name}}
max_payload: {{.Limits.MaxPayload}}
max_control_line: 4096
write_deadline: "10s"
jetstream {
  store_dir: {{printf "%q" .Dir}}
  max_file_store: {{.Limits.StoreBytes}}
  max_memory_store: 268435456
{{- if .StoreKey}}
  cipher: chachapoly
  key: {{printf "%q" .StoreKey}}
{{- end}}
}
accounts {
  SYS { users: [ {nkey: {{.System}}} ] }
  AUTH { users: [ {nkey: {{.Auth}}} ] }
  DEVICES { jetstream: enabled, users: [ {nkey: {{.Devices}}} ] }
  CORDON { jetstream: enabled, users: [ {nkey: {{.Cordon}}} ] }
}
system_account: SYS
authorization {
  timeout: 5
  auth_callout {
    issuer: {{.Issuer}}
    account: AUTH
    auth_users: [ {{.System}}, {{.Auth}}, {{.Devices}}, {{.Cordon}} ]
    xkey: {{.Curve}}
  }
}
`))

// ConfigText renders the broker's configuration without listeners.
func ConfigText(cfg ServerConfig) (string, error) {
	data := struct {
		ServerConfig
		System, Auth, Devices, Cordon, Issuer, Curve string
	}{ServerConfig: cfg}
	for _, part := range []struct {
		to   *string
		seed string
	}{
		{&data.System, cfg.Keys.System},
		{&data.Auth, cfg.Keys.Auth},
		{&data.Devices, cfg.Keys.Devices},
		{&data.Cordon, cfg.Keys.Cordon},
		{&data.Issuer, cfg.Keys.Issuer},
		{&data.Curve, cfg.Keys.Curve},
	} {
		key, err := public(part.seed)
		if err != nil {
			return "", err
		}
		*part.to = key
	}
	var out bytes.Buffer
	if err := configText.Execute(&out, data); err != nil {
		return "", fmt.Errorf("render broker configuration: %w", err)
	}
	return out.String(), nil
}

// Server is the embedded broker.
type Server struct {
	srv                   *server.Server
	nats, mqtt, websocket string
}

// StartServer starts the broker and returns once it accepts connections.
// refused is called with the broker's own words for every client that failed
// before the gate was asked (TLS); it may be nil.
func StartServer(cfg ServerConfig, log *slog.Logger, refused func(message string)) (*Server, error) {
	text, err := ConfigText(cfg)
	if err != nil {
		return nil, err
	}
	var opts server.Options
	if err := opts.ProcessConfigString(text); err != nil {
		return nil, fmt.Errorf("read broker configuration: %w", err)
	}
	opts.NoSigs = true
	opts.DontListen = cfg.NATS == ""
	if cfg.NATS != "" {
		if opts.Host, opts.Port, err = listen("--nats", cfg.NATS); err != nil {
			return nil, err
		}
		opts.TLS, opts.TLSVerify, opts.TLSConfig, opts.TLSTimeout = true, true, cfg.TLS, 5
	}
	if cfg.MQTT != "" {
		if opts.MQTT.Host, opts.MQTT.Port, err = listen("--mqtt", cfg.MQTT); err != nil {
			return nil, err
		}
		opts.MQTT.TLSConfig, opts.MQTT.TLSTimeout = cfg.TLS.Clone(), 5
	}
	if cfg.WebSocket != "" {
		if opts.Websocket.Host, opts.Websocket.Port, err = listen("--websocket", cfg.WebSocket); err != nil {
			return nil, err
		}
		opts.Websocket.TLSConfig, opts.Websocket.HandshakeTimeout = cfg.TLS.Clone(), 5*time.Second
	}
	if cfg.Cluster != "" {
		if err := join(&opts, cfg); err != nil {
			return nil, err
		}
	}
	srv, err := server.NewServer(&opts)
	if err != nil {
		return nil, fmt.Errorf("configure broker: %w", err)
	}
	adapter := &serverLog{log: log, refused: refused}
	srv.SetLoggerV2(adapter, false, false, false)
	srv.Start()
	if !srv.ReadyForConnections(30 * time.Second) {
		srv.Shutdown()
		if reason := adapter.lastFatal(); reason != "" {
			return nil, fmt.Errorf("start broker: %s", reason)
		}
		return nil, errors.New("start broker: not ready after 30 s")
	}
	s := &Server{srv: srv}
	if cfg.NATS != "" {
		s.nats = net.JoinHostPort(opts.Host, strconv.Itoa(opts.Port))
	}
	if cfg.WebSocket != "" {
		s.websocket = net.JoinHostPort(opts.Websocket.Host, strconv.Itoa(opts.Websocket.Port))
	}
	if cfg.MQTT != "" {
		s.mqtt = net.JoinHostPort(opts.MQTT.Host, strconv.Itoa(opts.MQTT.Port))
	}
	return s, nil
}

// listen splits an address and checks that it can be bound, because the
// broker itself would only log a taken port.
func listen(flag, address string) (host string, port int, err error) {
	probe, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", address)
	if err != nil {
		return "", 0, fmt.Errorf("listen on %s %s: %w; choose another port with %s HOST:PORT, or port 0 for any", flag, address, err, flag)
	}
	defer probe.Close()
	host, text, err := net.SplitHostPort(probe.Addr().String())
	if err != nil {
		return "", 0, fmt.Errorf("read address %s: %w", address, err)
	}
	if port, err = strconv.Atoi(text); err != nil {
		return "", 0, fmt.Errorf("read port of %s: %w", address, err)
	}
	return host, port, nil
}

// join makes the broker one of a cluster.
func join(opts *server.Options, cfg ServerConfig) (err error) {
	opts.Cluster.Name = "cordon"
	if opts.Cluster.Host, opts.Cluster.Port, err = listen("--cluster", cfg.Cluster); err != nil {
		return err
	}
	if ip := net.ParseIP(opts.Cluster.Host); cfg.RouteTLS == nil && !ip.IsLoopback() {
		return fmt.Errorf("listen on --cluster %s: brokers speak without TLS on loopback only", cfg.Cluster)
	}
	opts.Cluster.TLSConfig, opts.Cluster.TLSTimeout = cfg.RouteTLS, 5
	for _, text := range cfg.Routes {
		route, err := url.Parse(text)
		if err != nil {
			return fmt.Errorf("read route %q: %w", text, err)
		}
		opts.Routes = append(opts.Routes, route)
	}
	return nil
}

// WebSocketAddress is the bound host:port of the WebSocket listener, ""
// without one.
func (s *Server) WebSocketAddress() string { return s.websocket }

// ID is the server id that callout requests and connection lists carry.
func (s *Server) ID() string { return s.srv.ID() }

// NATSAddress is the bound host:port of the NATS listener, "" without one.
func (s *Server) NATSAddress() string { return s.nats }

// MQTTAddress is the bound host:port of the MQTT listener, "" without one.
func (s *Server) MQTTAddress() string { return s.mqtt }

// Option makes a client connect in process, without a socket.
func (s *Server) Option() nats.Option { return nats.InProcessServer(s.srv) }

// Shutdown stops the broker and waits until its files are closed.
func (s *Server) Shutdown() {
	s.srv.Shutdown()
	s.srv.WaitForShutdown()
}

// ExternalConfig is the whole configuration of a nats-server of one's own:
// ConfigText with listeners and the certificates that lie in keyDir.
func ExternalConfig(cfg ServerConfig, keyDir string) (string, error) {
	text, err := ConfigText(cfg)
	if err != nil {
		return "", err
	}
	tlsBlock := fmt.Sprintf("tls {\n  cert_file: %q\n  key_file: %q\n  ca_file: %q\n  verify: true\n  timeout: 5\n}\n",
		keyDir+"/broker-cert.pem", keyDir+"/broker-key.pem", keyDir+"/ca.crt")
	return text + "listen: \"0.0.0.0:4222\"\nhttp: \"127.0.0.1:8222\"\n" + tlsBlock + "mqtt {\n  listen: \"0.0.0.0:8883\"\n" + tlsBlock + "}\n", nil
}
