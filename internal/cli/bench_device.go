package cli

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/nats-io/nats.go"

	"cordon/ingest/codec"
	"cordon/internal/bus"
	"cordon/internal/fleet"
)

// benchDevices is what a child process of bench quarantine is told on its
// standard input; lines after it are ids that shall send a hot reading.
type benchDevices struct {
	NATS, MQTT string
	CA         []byte
	Every      time.Duration // between two readings of a device
	Devices    []benchIdentity
}

type benchIdentity struct {
	ID          string
	MQTT        bool
	Certificate []byte // PEM
	Key         []byte // PEM
}

// benchEvent is a line that a child writes.
type benchEvent struct {
	Device string
	What   string // ready, lost, tried, admitted, hot, failed
	At     int64  // Unix ns
}

// BenchDeviceCmd is a child process of bench quarantine: devices with
// connections of their own.
type BenchDeviceCmd struct{}

type benchChild struct {
	cfg  benchDevices
	pool *x509.CertPool

	mu      sync.Mutex
	out     *json.Encoder
	devices map[string]*benchDevice
}

type benchDevice struct {
	benchIdentity
	child *benchChild
	tries atomic.Int64
	up    atomic.Bool
	seq   atomic.Uint64
	nats  *nats.Conn
	mqtt  mqtt.Client
}

// Run connects, streams and obeys until standard input ends.
func (c *BenchDeviceCmd) Run(ctx context.Context, g *Globals) error {
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	child := &benchChild{out: json.NewEncoder(g.Out), devices: map[string]*benchDevice{}, pool: x509.NewCertPool()}
	line, err := in.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &child.cfg)
	}
	if err != nil {
		return fmt.Errorf("read devices: %w", err)
	}
	child.pool.AppendCertsFromPEM(child.cfg.CA)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := child.connect(); err != nil {
		return err
	}
	child.say(benchEvent{What: "ready"})
	go child.stream(ctx)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return nil //nolint:nilerr // the parent is done
		}
		if d := child.devices[line[:len(line)-1]]; d != nil {
			d.say("hot")
			d.send(99)
		}
	}
}

func (c *benchChild) say(e benchEvent) {
	e.At = time.Now().UnixNano()
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.out.Encode(e) // without the parent nobody reads it
}

func (d *benchDevice) say(what string) {
	d.child.say(benchEvent{Device: d.ID, What: what})
}

// connect connects every device, a few at a time.
func (c *benchChild) connect() error {
	var group sync.WaitGroup
	slots := make(chan struct{}, 8)
	var mu sync.Mutex
	var errs []error
	for _, id := range c.cfg.Devices {
		d := &benchDevice{benchIdentity: id, child: c}
		c.devices[id.ID] = d
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			if err := d.connect(); err != nil {
				mu.Lock()
				errs = append(errs, fmt.Errorf("connect %s: %w", d.ID, err))
				mu.Unlock()
			}
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

// Dial counts attempts; the first is no reconnect.
func (d *benchDevice) Dial(network, address string) (net.Conn, error) {
	if d.tries.Add(1) > 1 {
		d.say("tried")
	}
	return (&net.Dialer{Timeout: 10 * time.Second}).Dial(network, address)
}

func (d *benchDevice) connect() (err error) {
	certificate, err := tls.X509KeyPair(d.Certificate, d.Key)
	if err != nil {
		return fmt.Errorf("read identity: %w", err)
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: d.child.pool, Certificates: []tls.Certificate{certificate}}
	if d.MQTT {
		return d.connectMQTT(cfg)
	}
	d.nats, err = nats.Connect("tls://"+d.child.cfg.NATS,
		nats.Name(d.ID), nats.Secure(cfg), nats.CustomInboxPrefix(bus.Inbox(d.ID)), nats.Timeout(30*time.Second), nats.SetCustomDialer(d),
		nats.IgnoreAuthErrorAbort(), nats.MaxReconnects(-1), nats.ReconnectWait(2*time.Second), nats.ReconnectBufSize(-1),
		nats.DisconnectErrHandler(func(*nats.Conn, error) {
			d.up.Store(false)
			d.say("lost")
		}),
		nats.ReconnectHandler(func(*nats.Conn) {
			d.up.Store(true)
			d.say("admitted")
		}),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}),
	)
	d.up.Store(err == nil)
	return err
}

func (d *benchDevice) connectMQTT(cfg *tls.Config) error {
	first := true
	options := mqtt.NewClientOptions().AddBroker("ssl://"+d.child.cfg.MQTT).SetClientID(d.ID).SetTLSConfig(cfg).SetProtocolVersion(4).
		SetConnectTimeout(30*time.Second).SetAutoReconnect(true).SetMaxReconnectInterval(2*time.Second).SetKeepAlive(time.Minute).
		SetWill("fleet/telemetry/"+d.ID, `{"will":true}`, 1, false).
		SetConnectionLostHandler(func(mqtt.Client, error) {
			d.up.Store(false)
			d.say("lost")
		}).
		SetReconnectingHandler(func(mqtt.Client, *mqtt.ClientOptions) { d.say("tried") }).
		SetOnConnectHandler(func(mqtt.Client) {
			d.up.Store(true)
			if !first {
				d.say("admitted")
			}
			first = false
		})
	d.mqtt = mqtt.NewClient(options)
	token := d.mqtt.Connect()
	if !token.WaitTimeout(time.Minute) {
		return errors.New("no answer")
	}
	return token.Error()
}

func (d *benchDevice) send(value float64) {
	if !d.up.Load() {
		return
	}
	data := codec.EncodeTelemetry("bench", d.seq.Add(1), []fleet.Reading{{ObservedAt: time.Now(), Metric: "cpu_temp_celsius", Value: value}})
	if d.MQTT {
		d.mqtt.Publish("fleet/telemetry/"+d.ID, 1, false, data)
		return
	}
	_ = d.nats.Publish("fleet.telemetry."+d.ID, data) // a cut device can't
	_ = d.nats.FlushTimeout(time.Second)              // the same
}

// stream lets every device send a reading in turn.
func (c *benchChild) stream(ctx context.Context) {
	pause := c.cfg.Every / time.Duration(max(1, len(c.cfg.Devices)))
	tick := time.NewTicker(max(pause, time.Microsecond))
	defer tick.Stop()
	for {
		for _, id := range c.cfg.Devices {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			d := c.devices[id.ID]
			if d.MQTT || !d.up.Load() {
				d.send(45)
				continue
			}
			_ = d.nats.Publish("fleet.telemetry."+d.ID, codec.EncodeTelemetry("bench", d.seq.Add(1), []fleet.Reading{{ObservedAt: time.Now(), Metric: "cpu_temp_celsius", Value: 45}})) // a cut device can't
		}
	}
}
