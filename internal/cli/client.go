package cli

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"cordon/internal/app"
	"cordon/internal/fleet"
	"cordon/web/api"
)

// maxAnswer is the most bytes of an answer that is read.
const maxAnswer = 64 << 20

// Client speaks to the API of a running Cordon.
type Client struct {
	base  string
	token string
	http  *http.Client
}

// NewClient makes a client of the API at address; ca names a file with the
// authority of its certificate, empty for the system's authorities.
func NewClient(address, token, ca string) (*Client, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, fleet.Errorf(fleet.CodeInvalid, "address %q is not of the form https://HOST:PORT", address).On("url")
	}
	pool, err := authority(ca)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool},
		Proxy:                 http.ProxyFromEnvironment,
		ResponseHeaderTimeout: 60 * time.Second,
		ForceAttemptHTTP2:     true,
	}
	return &Client{
		base: strings.TrimSuffix(u.String(), "/") + api.Prefix, token: token,
		// A redirect would carry the token elsewhere.
		http: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}, nil
}

// connect reaches the Cordon that the flags name: --url with --token and
// --ca, or what a Cordon on this host left in --data.
func connect(g *Globals) (*Client, error) {
	address, token, ca := g.URL, g.Token, g.CA
	if address == "" {
		ready, err := readReady(g.Data)
		if err != nil {
			return nil, err
		}
		address = ready.URL
		if ca == "" {
			ca = ready.CA
		}
		if token == "" {
			secret, err := os.ReadFile(ready.CLITokenFile)
			if err != nil {
				return nil, fmt.Errorf("read token of this host: %w", err)
			}
			token = strings.TrimSpace(string(secret))
		}
	}
	if token == "" {
		return nil, fleet.Errorf(fleet.CodeUnauthenticated, "%s needs a token: make one with \"cordon token create NAME\" and give it with --token or CORDON_TOKEN", address)
	}
	return NewClient(address, token, ca)
}

func readReady(data string) (app.Ready, error) {
	var ready app.Ready
	raw, err := os.ReadFile(app.ReadyPath(data))
	if errors.Is(err, fs.ErrNotExist) {
		return ready, fleet.Errorf(fleet.CodeUnavailable, "no Cordon runs on %s: start it with \"cordon up --data %s\", or say where it is with --url, --token and --ca", data, data)
	}
	if err != nil {
		return ready, fmt.Errorf("read where Cordon is: %w", err)
	}
	if err := json.Unmarshal(raw, &ready); err != nil {
		return ready, fmt.Errorf("read where Cordon is: %w", err)
	}
	return ready, nil
}

// Do sends in as JSON (nil: no body) and decodes the answer into out (nil:
// ignored). A refusal is a *fleet.Error with the words of the API.
func (c *Client) Do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return c.exchange(req, out)
}

// exchange sends a request and decodes the answer.
func (c *Client) exchange(req *http.Request, out any) error {
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("Accept", "application/json")
	answer, err := c.http.Do(req)
	if err != nil {
		return fleet.Errorf(fleet.CodeUnavailable, "Cordon does not answer: %w", err)
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if answer.StatusCode >= http.StatusBadRequest {
		return refusal(answer.StatusCode, raw)
	}
	if out == nil || len(raw) == 0 {
		return nil
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return fmt.Errorf("read answer of %s: %w", req.URL.Path, err)
	}
	return nil
}

func refusal(status int, raw []byte) error {
	var p api.Problem
	if err := json.Unmarshal(raw, &p); err != nil || p.Detail == "" {
		return fleet.Errorf(fleet.CodeUnavailable, "Cordon answered with HTTP status %d", status)
	}
	text := p.Detail
	for _, e := range p.Errors {
		if e.Message != p.Detail {
			text += "; " + strings.TrimPrefix(strings.TrimPrefix(e.Location, "body."), "query.") + ": " + e.Message
		}
	}
	return fleet.Errorf(fleet.Code(p.Code), "%s", text)
}

// call connects, asks once and returns the answer.
func call[T any](ctx context.Context, g *Globals, method, path string, in any) (T, error) {
	var out T
	c, err := connect(g)
	if err != nil {
		return out, err
	}
	return out, c.Do(ctx, method, path, in, &out)
}

// pages reads a list to its end, or to limit items.
func pages[T any](ctx context.Context, g *Globals, path string, query url.Values, limit int) ([]T, error) {
	c, err := connect(g)
	if err != nil {
		return nil, err
	}
	all := []T{}
	for {
		size := 500
		if limit > 0 {
			size = min(size, limit-len(all))
		}
		query.Set("limit", strconv.Itoa(size))
		var p fleet.Page[T]
		if err := c.Do(ctx, http.MethodGet, path+"?"+query.Encode(), nil, &p); err != nil {
			return nil, err
		}
		all = append(all, p.Items...)
		if p.Next == "" || limit > 0 && len(all) >= limit {
			return all, nil
		}
		query.Set("cursor", p.Next)
	}
}

// show prints v as JSON with --json, else what people prints.
func show(g *Globals, v any, people func(w io.Writer)) error {
	if g.JSON {
		enc := json.NewEncoder(g.Out)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		if err := enc.Encode(v); err != nil {
			return fmt.Errorf("print: %w", err)
		}
		return nil
	}
	w := tabwriter.NewWriter(g.Out, 0, 0, 2, ' ', 0)
	people(w)
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// items gives a list the shape that the API's lists have.
func items[T any](list []T) map[string]any { return map[string]any{"items": list} }

// clean takes control characters out of what devices and attackers wrote, so
// that it can't steer the terminal.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '·'
		}
		return r
	}, text)
}

// row prints one line of a table.
func row(w io.Writer, cells ...any) {
	texts := make([]string, len(cells))
	for i, cell := range cells {
		switch v := cell.(type) {
		case time.Time:
			texts[i] = when(v)
		default:
			texts[i] = clean(fmt.Sprint(v))
		}
		if texts[i] == "" {
			texts[i] = "-"
		}
	}
	fmt.Fprintln(w, strings.Join(texts, "\t"))
}

func when(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

func values(pairs ...string) url.Values {
	q := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	return q
}
