package api

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// recheckCertificate is how often the files of a certificate are looked at.
const recheckCertificate = 2 * time.Second

// ServerCertificate is a given server certificate, read again when its files change.
type ServerCertificate struct {
	certFile, keyFile string
	log               *slog.Logger

	mu      sync.Mutex
	current *tls.Certificate
	stamp   string
	looked  time.Time
}

// LoadCertificate reads a certificate (PEM, the chain after it) and its key.
func LoadCertificate(certFile, keyFile string, log *slog.Logger) (*ServerCertificate, error) {
	if certFile == "" || keyFile == "" {
		return nil, fmt.Errorf("a certificate needs its key: give both files")
	}
	c := &ServerCertificate{certFile: certFile, keyFile: keyFile, log: log}
	if err := c.load(); err != nil {
		return nil, err
	}
	return c, nil
}

// Get is for tls.Config.GetCertificate. A certificate that can't be read does
// not replace the one before.
func (c *ServerCertificate) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.looked) >= recheckCertificate {
		c.looked = time.Now()
		if stamp := c.fileStamp(); stamp != c.stamp {
			if err := c.load(); err != nil {
				c.log.Error("new certificate was not taken; the old one stays", "error", err)
			} else {
				c.log.Info("certificate was read again", "file", c.certFile)
			}
		}
	}
	return c.current, nil
}

func (c *ServerCertificate) load() error {
	stamp := c.fileStamp()
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("read certificate: %w", err)
	}
	c.current, c.stamp = &pair, stamp
	return nil
}

func (c *ServerCertificate) fileStamp() string {
	stamp := ""
	for _, name := range []string{c.certFile, c.keyFile} {
		if info, err := os.Stat(name); err == nil {
			stamp += fmt.Sprintf("%d %d\n", info.ModTime().UnixNano(), info.Size())
		}
	}
	return stamp
}
