package agent

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go"

	"cordon/internal/bus"
	"cordon/internal/fleet"
)

const (
	askSoon = 10 * time.Second // until the first answer
	askWait = 15 * time.Second // for an answer
)

// keeper keeps an identity good: it asks Cordon whether the certificate is
// due, and gets the next one with a new key over the connection that the old
// one made.
type keeper struct {
	id    *Identity
	conn  *nats.Conn
	dir   string // of the identity; empty: only in memory
	every time.Duration
	log   *slog.Logger
}

// renewed is Cordon's answer on fleet.identity.<device>.
type renewed struct {
	Due         string     `json:"due"`
	NotAfter    time.Time  `json:"not_after"`
	CA          string     `json:"ca"`
	Certificate string     `json:"certificate"`
	Code        fleet.Code `json:"code"`
	Error       string     `json:"error"`
}

// run asks now and then, and at once when an operator wants a new key.
func (k *keeper) run(ctx context.Context) error {
	nudge := make(chan struct{}, 1)
	// Only Cordon may publish there.
	sub, err := k.conn.Subscribe(bus.SubjectIdentity+"."+k.id.Device+".rotate", func(*nats.Msg) {
		select {
		case nudge <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return fmt.Errorf("listen for rotations: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }() // the connection is gone then
	if k.every <= 0 {
		k.every = DefaultConfig().Renew
	}
	wait := time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-nudge:
		case <-time.After(wait):
		}
		wait = askSoon
		if !k.conn.IsConnected() {
			continue
		}
		switch err := k.once(ctx); {
		case err == nil:
			wait = k.every
		case ctx.Err() != nil:
			return nil
		default:
			k.log.Warn("certificate was not renewed yet", "device", k.id.Device, "error", err)
		}
	}
}

// once asks, and renews when it is due.
func (k *keeper) once(ctx context.Context) error {
	answer, err := k.ask(ctx, "")
	if err != nil {
		return err
	}
	if err := k.id.trust([]byte(answer.CA), k.dir); err != nil {
		return err
	}
	if answer.Due == "" {
		return nil
	}
	keyPEM, err := newKey()
	if err != nil {
		return err
	}
	csr, err := request(keyPEM)
	if err != nil {
		return err
	}
	if answer, err = k.ask(ctx, string(csr)); err != nil {
		return err
	}
	next, err := newIdentity(Credentials{
		Device: k.id.Device, NATS: k.id.NATS, MQTT: k.id.MQTT, Certificate: []byte(answer.Certificate), CA: []byte(answer.CA),
	}, keyPEM)
	if err != nil {
		return err
	}
	if k.dir != "" {
		// One file, so that a crash leaves the old identity or the new one, and
		// never the key of one with the certificate of the other.
		if err := writeFile(filepath.Join(k.dir, renewedFile), append([]byte(answer.Certificate), keyPEM...)); err != nil {
			return fmt.Errorf("store identity: %w", err)
		}
	}
	k.id.adopt(next)
	k.log.Info("certificate renewed", "device", k.id.Device, "until", answer.NotAfter)
	// The old certificate is good until the new one has connected.
	if err := k.conn.ForceReconnect(); err != nil {
		return fmt.Errorf("connect with the new certificate: %w", err)
	}
	return nil
}

func (k *keeper) ask(ctx context.Context, csr string) (renewed, error) {
	var answer renewed
	question, err := json.Marshal(map[string]string{"csr": csr})
	if err != nil {
		return answer, fmt.Errorf("encode question: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	msg, err := k.conn.RequestWithContext(ctx, bus.SubjectIdentity+"."+k.id.Device, question)
	if err != nil {
		return answer, fmt.Errorf("ask for a certificate: %w", err)
	}
	if err := json.Unmarshal(msg.Data, &answer); err != nil {
		return answer, fmt.Errorf("read answer: %w", err)
	}
	if answer.Error != "" {
		return answer, fleet.Errorf(answer.Code, "%s", answer.Error)
	}
	return answer, nil
}

// renewedFile holds the newest certificate with its key, once there was a
// renewal; the files of the enrolment are then history.
const renewedFile = "renewed.pem"

// loadRenewed reads certificate and key from renewedFile.
func loadRenewed(dir string) (certificate, key []byte, err error) {
	raw, err := os.ReadFile(filepath.Join(dir, renewedFile))
	if err != nil {
		return nil, nil, err
	}
	for {
		var block *pem.Block
		if block, raw = pem.Decode(raw); block == nil {
			break
		}
		if block.Type == "CERTIFICATE" {
			certificate = append(certificate, pem.EncodeToMemory(block)...)
		} else {
			key = pem.EncodeToMemory(block)
		}
	}
	return certificate, key, nil
}

// adopt makes the next identity the current one; connections that are made
// from now on prove it.
func (id *Identity) adopt(next *Identity) {
	id.mu.Lock()
	defer id.mu.Unlock()
	id.Certificate, id.CA, id.keyPEM, id.caPEM = next.Certificate, next.CA, next.keyPEM, next.caPEM
}

// trust takes the authorities that Cordon names.
func (id *Identity) trust(caPEM []byte, dir string) error {
	id.mu.Lock()
	defer id.mu.Unlock()
	if bytes.Equal(caPEM, id.caPEM) {
		return nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(caPEM) {
		return errors.New("Cordon names no authority to trust") //nolint:staticcheck,revive // a name
	}
	if dir != "" {
		if err := writeFile(filepath.Join(dir, caFile), caPEM); err != nil {
			return fmt.Errorf("store authority: %w", err)
		}
	}
	id.CA, id.caPEM = pool, caPEM
	return nil
}

// certificate is the current one, for the next connection.
func (id *Identity) certificate() (tls.Certificate, error) {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.Certificate, nil
}

// authorities are the current ones, for the next connection.
func (id *Identity) authorities() (*x509.CertPool, error) {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.CA, nil
}
