package gate

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"

	"github.com/nats-io/jwt/v2"

	"cordon/internal/identity"
)

// claim finds out which device a connection has proven to be.
func (g *Gate) claim(ctx context.Context, req *jwt.AuthorizationRequestClaims) (identity.Claim, verdict) {
	if req.ClientInformation.Kind != "Client" {
		return identity.Claim{}, verdict{refused: unknown, detail: "connections of kind " + req.ClientInformation.Kind + " are not admitted"}
	}
	p := identity.Presented{
		User: req.ConnectOptions.Username, Password: req.ConnectOptions.Password, Token: req.ConnectOptions.Token,
	}
	if req.TLS == nil {
		return identity.Claim{}, verdict{refused: noCertificate, detail: "the connection is not encrypted"}
	}
	for _, chain := range req.TLS.VerifiedChains {
		certs, err := parseChain(chain)
		if err != nil {
			return identity.Claim{}, verdict{refused: noCertificate, detail: err.Error()}
		}
		p.Chains = append(p.Chains, certs)
	}
	claim, err := g.deps.Registry.Identify(ctx, p)
	v := verdict{device: claim.Device}
	switch {
	case err == nil:
		return claim, v
	case errors.Is(err, identity.ErrNoCredential):
		v.refused = noCertificate
	case errors.Is(err, identity.ErrForeign):
		v.refused = foreign
	case errors.Is(err, identity.ErrExpired):
		v.refused = expired
	case errors.Is(err, identity.ErrUnknown):
		v.refused = unknown
	default:
		return claim, g.unavailable(v, err)
	}
	v.detail = err.Error()
	return claim, v
}

func parseChain(chain []string) ([]*x509.Certificate, error) {
	certs := make([]*x509.Certificate, 0, len(chain))
	for _, text := range chain {
		block, _ := pem.Decode([]byte(text))
		if block == nil {
			return nil, errors.New("certificate is not PEM")
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, errors.New("certificate can't be read")
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, errors.New("the chain of certificates is empty")
	}
	return certs, nil
}
