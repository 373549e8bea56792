package agent

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"cordon/internal/fleet"
)

// Registration is what a device is enrolled as.
type Registration struct {
	ID       string   `json:"id"`
	Cohort   string   `json:"cohort,omitempty"`
	Site     string   `json:"site,omitempty"`
	Model    string   `json:"model,omitempty"`
	Firmware string   `json:"firmware,omitempty"`
	Owner    string   `json:"owner,omitempty"`
	Tags     []string `json:"tags,omitempty"`
	TimeZone string   `json:"time_zone,omitempty"`
	Historic bool     `json:"historic,omitempty"`
}

// Credentials are what a device gets for its token and certificate request.
type Credentials struct {
	Device      string
	Certificate []byte // PEM
	CA          []byte // PEM
	NATS        string // host:port or URL
	MQTT        string
}

// Issuer gives devices their identity: the HTTP API (Client), or the registry
// when it runs in the same process.
type Issuer interface {
	// Register enrols a device and returns its one-time token.
	// CodeConflict: the id is taken.
	Register(ctx context.Context, r Registration) (token string, err error)
	// Redeem trades a token and a certificate request (PEM) for a certificate.
	Redeem(ctx context.Context, token string, csr []byte) (Credentials, error)
}

// Stored is how many records of a device Cordon holds, counted in its tables.
type Stored struct {
	Readings    uint64 `json:"readings_stored"`
	AuditEvents uint64 `json:"audit_events_stored"`
	DeadLetters uint64 `json:"dead_letters"`
}

// Total is the number of records, accepted or not.
func (s Stored) Total() uint64 { return s.Readings + s.AuditEvents + s.DeadLetters }

// Client reaches Cordon through its HTTP API.
type Client struct {
	base  *url.URL
	token string
	http  *http.Client

	device, hardware string // what Redeem says of the device
}

// For is the client with what Redeem says of the device: the id that it wants,
// for a fleet token, and a hardware id. Both may be empty.
func (c *Client) For(device, hardwareID string) *Client {
	named := *c
	named.device, named.hardware = device, hardwareID
	return &named
}

// NewClient makes a client of the Cordon at address. token is an API token
// and may be empty for Redeem, which needs none. pool holds the authorities
// to trust; nil trusts those of the system.
func NewClient(address, token string, pool *x509.CertPool) (*Client, error) {
	base, err := url.Parse(address)
	if err != nil || base.Host == "" || (base.Scheme != "https" && base.Scheme != "http") {
		return nil, fleet.Errorf(fleet.CodeInvalid, "address %q is not a URL such as https://cordon.example:8443", address).On("url")
	}
	transport := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSClientConfig:     &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
		MaxIdleConnsPerHost: 16,
		IdleConnTimeout:     time.Minute,
	}
	return &Client{base: base, token: token, http: &http.Client{
		Transport: transport, Timeout: 30 * time.Second,
		// A redirect would carry the token elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Register enrols a device; see Issuer.
func (c *Client) Register(ctx context.Context, r Registration) (string, error) {
	var answer struct {
		Token string `json:"token"`
	}
	if err := c.do(ctx, http.MethodPost, "/api/v1/devices", r, &answer); err != nil {
		return "", fmt.Errorf("enrol device %s: %w", r.ID, err)
	}
	return answer.Token, nil
}

// Redeem trades a token for a certificate; see Issuer.
func (c *Client) Redeem(ctx context.Context, token string, csr []byte) (Credentials, error) {
	request := map[string]string{"token": token, "csr": string(csr)}
	if c.device != "" {
		request["device"] = c.device
	}
	if c.hardware != "" {
		request["hardware_id"] = c.hardware
	}
	var answer struct {
		Device      json.RawMessage `json:"device"`
		Certificate string          `json:"certificate"`
		CA          string          `json:"ca"`
		NATS        string          `json:"nats"`
		MQTT        string          `json:"mqtt"`
	}
	if err := c.do(ctx, http.MethodPost, "/api/v1/enrollments", request, &answer); err != nil {
		return Credentials{}, fmt.Errorf("get certificate: %w", err)
	}
	id, err := deviceID(answer.Device)
	if err != nil {
		return Credentials{}, err
	}
	return Credentials{
		Device: id, Certificate: []byte(answer.Certificate), CA: []byte(answer.CA),
		NATS: c.reachable(answer.NATS), MQTT: c.reachable(answer.MQTT),
	}, nil
}

// Stored asks how many records of a device Cordon holds.
func (c *Client) Stored(ctx context.Context, device string) (Stored, error) {
	var answer Stored
	if err := c.do(ctx, http.MethodGet, "/api/v1/devices/"+url.PathEscape(device), nil, &answer); err != nil {
		return Stored{}, fmt.Errorf("ask for device %s: %w", device, err)
	}
	return answer, nil
}

// deviceID reads an id given alone or as part of the device.
func deviceID(raw json.RawMessage) (string, error) {
	var id string
	if json.Unmarshal(raw, &id) != nil {
		var device struct {
			ID string `json:"id"`
		}
		if err := json.Unmarshal(raw, &device); err != nil {
			return "", fmt.Errorf("read enrolment answer: %w", err)
		}
		id = device.ID
	}
	if err := fleet.CheckDeviceID(id); err != nil {
		return "", fmt.Errorf("read enrolment answer: %w", err)
	}
	return id, nil
}

// reachable replaces a host that means "every address" by the one that the
// API was reached at.
func (c *Client) reachable(address string) string {
	scheme, hostPort, ok := strings.Cut(address, "://")
	if !ok {
		scheme, hostPort = "", address
	}
	host, port, err := net.SplitHostPort(hostPort)
	if err != nil {
		return address
	}
	if ip := net.ParseIP(host); host != "" && (ip == nil || !ip.IsUnspecified()) {
		return address
	}
	hostPort = net.JoinHostPort(c.base.Hostname(), port)
	if scheme == "" {
		return hostPort
	}
	return scheme + "://" + hostPort
}

const maxAnswer = 4 << 20

// do calls the API. When it was asked too often it waits and asks again.
func (c *Client) do(ctx context.Context, method, path string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
	}
	for wait := 250 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		err := c.once(ctx, method, path, body, out)
		if fleet.CodeOf(err) != fleet.CodeTooMany || wait == 5*time.Second {
			return err
		}
		sleep(ctx, wait)
	}
}

func (c *Client) once(ctx context.Context, method, path string, body []byte, out any) error {
	req, err := http.NewRequestWithContext(ctx, method, c.base.JoinPath(path).String(), bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return explain(c.base, err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fleet.Errorf(fleet.CodeUnavailable, "read answer of %s: %w", c.base, err)
	}
	if resp.StatusCode >= 300 {
		return problem(resp.StatusCode, raw)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return fmt.Errorf("read answer of %s%s: %w", c.base, path, err)
	}
	return nil
}

// explain turns what went wrong with a connection into what to do.
func explain(base *url.URL, err error) error {
	var unknown x509.UnknownAuthorityError
	if errors.As(err, &unknown) {
		return fleet.Errorf(fleet.CodeUnavailable, "%s has a certificate of an unknown authority; name Cordon's with --ca FILE: %w", base, err)
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	return fleet.Errorf(fleet.CodeUnavailable, "Cordon at %s does not answer: %w", base, err)
}

// problem reads an application/problem+json answer.
func problem(status int, raw []byte) error {
	var p struct {
		Title  string `json:"title"`
		Detail string `json:"detail"`
		Errors []struct {
			Message  string `json:"message"`
			Location string `json:"location"`
		} `json:"errors"`
	}
	_ = json.Unmarshal(raw, &p) // a foreign body leaves it empty, which is handled below
	text := p.Detail
	if text == "" {
		text = p.Title
	}
	if text == "" {
		text = http.StatusText(status)
	}
	for _, e := range p.Errors {
		text += "; " + strings.TrimSpace(e.Location+" "+e.Message)
	}
	code := fleet.CodeInvalid
	switch {
	case status == http.StatusUnauthorized:
		code = fleet.CodeUnauthenticated
	case status == http.StatusForbidden:
		code = fleet.CodeForbidden
	case status == http.StatusNotFound:
		code = fleet.CodeNotFound
	case status == http.StatusConflict:
		code = fleet.CodeConflict
	case status == http.StatusTooManyRequests:
		code = fleet.CodeTooMany
	case status >= 500:
		code = fleet.CodeUnavailable
	}
	return fleet.Errorf(code, "%s (HTTP %d)", text, status)
}
