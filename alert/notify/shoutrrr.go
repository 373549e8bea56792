package notify

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/nicholas-fedor/shoutrrr"
	"github.com/nicholas-fedor/shoutrrr/pkg/router"
	"github.com/nicholas-fedor/shoutrrr/pkg/types"
)

// shoutrrrSender reaches what shoutrrr reaches (Telegram, Discord, Matrix,
// ntfy, …). It dials by itself, past the guard against private addresses,
// which is why such a receiver must say allow_private.
type shoutrrrSender struct {
	router  *router.ServiceRouter
	base    string
	timeout time.Duration
}

func newShoutrrr(address, base string, timeout time.Duration) (*shoutrrrSender, error) {
	r, err := shoutrrr.CreateSender(address)
	if err != nil {
		return nil, errors.New("is not an address that shoutrrr understands") // its own words repeat the address
	}
	r.Timeout = timeout
	return &shoutrrrSender{router: r, base: base, timeout: timeout}, nil
}

func checkShoutrrr(address string) error {
	if u, err := url.Parse(address); err != nil || u.Scheme == "" {
		return errors.New("is not an address that shoutrrr understands")
	}
	_, err := newShoutrrr(address, "", time.Second)
	return err
}

func (s *shoutrrrSender) send(ctx context.Context, items []item, _ string) outcome {
	title, text := digestHead(items), plainDigest(items, s.base)
	if len(items) == 1 {
		b := briefOf(items[0], s.base)
		title, text = b.Head, b.plain()
	}
	start := time.Now()
	out := outcome{request: text}
	done := make(chan error, 1)
	go func() {
		params := types.Params{"title": title}
		var errs []error
		for _, err := range s.router.Send(text, &params) {
			if err != nil {
				errs = append(errs, err)
			}
		}
		done <- errors.Join(errs...)
	}()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		err = fmt.Errorf("wait for shoutrrr: %w", ctx.Err())
	}
	out.latency = time.Since(start)
	if err != nil {
		out.fault = err
		return out
	}
	out.delivered, out.answer = true, "taken"
	return out
}
