package app

import (
	"fmt"
	"net"
	"net/url"
	"strings"

	"cordon/alert/notify"
)

// Config is what cordon up is told, by flags, environment and settings file.
type Config struct {
	HTTP      string   `help:"Address of the dashboard and API; port 0 picks one." default:"127.0.0.1:8443" env:"CORDON_HTTP" placeholder:"HOST:PORT"`
	NATS      string   `help:"Address where devices connect with NATS; port 0 picks one." name:"nats" default:"127.0.0.1:4222" env:"CORDON_NATS" placeholder:"HOST:PORT"`
	MQTT      string   `help:"Address where devices connect with MQTT 3.1.1; port 0 picks one." name:"mqtt" default:"127.0.0.1:8883" env:"CORDON_MQTT" placeholder:"HOST:PORT"`
	WebSocket string   `help:"Address where devices connect with NATS over WebSocket; off unless set, port 0 picks one." name:"websocket" env:"CORDON_WEBSOCKET" placeholder:"HOST:PORT"`
	Host      []string `help:"Names and addresses by which others reach this host; they go into its certificates, the first into the answers to devices." env:"CORDON_HOST" placeholder:"NAME"`
	Rules     string   `help:"Directory with rules of your own (*.yaml), beside the shipped ones." env:"CORDON_RULES" type:"path" placeholder:"DIR"`
	Link      string   `help:"Address of the dashboard as people reach it, for links in notifications; default: --http." env:"CORDON_LINK" placeholder:"URL"`
	StoreKey  string   `help:"File with the key that encrypts the broker's files at rest; it is made when there is none. Keep a copy: without it they can't be read. CORDON_STORE_KEY may hold the key itself instead." name:"store-key" env:"CORDON_STORE_KEY_FILE" type:"path" placeholder:"FILE"`
	StoreMB   int64    `help:"Most megabytes that the broker keeps of what devices sent." name:"store-mb" default:"8192" env:"CORDON_STORE_MB" placeholder:"MB"`

	TLSCert  string `help:"Certificate of the dashboard and API (PEM, the chain after it), instead of one of Cordon's own authority; read again when it changes." name:"tls-cert" env:"CORDON_TLS_CERT" type:"path" placeholder:"FILE"`
	TLSKey   string `help:"Private key of --tls-cert (PEM)." name:"tls-key" env:"CORDON_TLS_KEY" type:"path" placeholder:"FILE"`
	Syslog   string `help:"Syslog server (RFC 5424) that gets the operator log: tls://HOST:PORT, tcp://HOST:PORT or udp://HOST:PORT." name:"syslog" env:"CORDON_SYSLOG" placeholder:"URL"`
	SyslogCA string `help:"Certificate of the authority that signed the certificate of a tls:// --syslog." name:"syslog-ca" env:"CORDON_SYSLOG_CA" type:"path" placeholder:"FILE"`

	ClickHouse    string `help:"A ClickHouse of your own instead of the embedded one: clickhouse://user:password@host:9000/database." name:"clickhouse" env:"CORDON_CLICKHOUSE" placeholder:"DSN"`
	EngineLibrary string `help:"Path of libchdb.so, the embedded ClickHouse; default: where make installed it." env:"CORDON_ENGINE_LIBRARY" type:"path" placeholder:"FILE"`

	Heartbeat string `help:"Address that is asked every minute while all is well, so that an outside watcher raises the alarm when Cordon falls silent." env:"CORDON_HEARTBEAT" placeholder:"URL"`

	Receivers []notify.Receiver `kong:"-"`
	Policy    notify.Policy     `kong:"-"`
	Version   string            `kong:"-"`
}

// Roles are the parts that one process of cordon serve runs.
type Roles struct{ Ingest, Detect, Alert, Web bool }

// ParseRoles reads a list such as ingest,detect,alert,web.
func ParseRoles(names []string) (Roles, error) {
	var r Roles
	for _, name := range names {
		switch name {
		case "ingest":
			r.Ingest = true
		case "detect":
			r.Detect = true
		case "alert":
			r.Alert = true
		case "web":
			r.Web = true
		default:
			return Roles{}, fmt.Errorf("role %q is not one of ingest, detect, alert, web", name)
		}
	}
	if r == (Roles{}) {
		return Roles{}, fmt.Errorf("say which roles to run: --role ingest,detect,alert,web")
	}
	return r, nil
}

// reachable replaces the host of a bound address by the name that others use.
func (c Config) reachable(scheme, address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return scheme + "://" + address
	}
	switch {
	case len(c.Host) > 0:
		host = c.Host[0]
	case host == "" || host == "0.0.0.0" || host == "::":
		host = "127.0.0.1"
	}
	u := url.URL{Scheme: scheme, Host: net.JoinHostPort(host, port)}
	return u.String()
}

// names go into server certificates.
func (c Config) names() []string {
	names := append([]string{}, c.Host...)
	for _, address := range []string{c.HTTP, c.NATS, c.MQTT, c.WebSocket} {
		if host, _, err := net.SplitHostPort(address); err == nil && host != "" && host != "0.0.0.0" && host != "::" {
			names = append(names, strings.Trim(host, "[]"))
		}
	}
	return names
}
