package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
)

// CertFile holds the authorities' certificates in the directory of their keys.
const CertFile = "ca.crt"

// Client makes a client certificate for a part of Cordon itself, which
// connects to an external broker. It names no device.
func (ca *CA) Client(name string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("generate client key: %w", err)
	}
	template := ca.template(name, serverValidity)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	der, leaf, err := ca.oldest().sign(template, key.Public())
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("sign client certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// ServerPEM is Server for a program that reads files: certificate and key.
func (ca *CA) ServerPEM(names ...string) (certificate, key []byte, err error) {
	cert, err := ca.Server(names...)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return nil, nil, fmt.Errorf("encode server key: %w", err)
	}
	return pemBlock("CERTIFICATE", cert.Leaf.Raw), pemBlock("PRIVATE KEY", der), nil
}
