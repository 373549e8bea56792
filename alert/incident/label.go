package incident

import (
	"context"
	"net/url"
	"slices"
	"strings"

	"cordon/internal/fleet"
)

// Bounds of tags and tickets.
const (
	MaxTags   = 20
	MaxTag    = 64
	MaxTicket = 500
)

// SetTags replaces the tags of an incident, in any state. CodeInvalid says
// which one is wrong.
func (s *Service) SetTags(ctx context.Context, id, actor string, tags []string) (fleet.Incident, error) {
	if len(tags) > MaxTags {
		return fleet.Incident{}, fleet.Errorf(fleet.CodeInvalid, "%d tags, the limit is %d", len(tags), MaxTags).On("tags")
	}
	var clean []string
	for _, tag := range tags {
		tag = strings.TrimSpace(tag)
		if tag == "" || clip(tag, MaxTag) != tag {
			return fleet.Incident{}, fleet.Errorf(fleet.CodeInvalid, "tag %q is not 1 to %d characters on one line", clip(tag, MaxTag), MaxTag).On("tags")
		}
		clean = addUnique(clean, tag, MaxTags)
	}
	return s.mutate(ctx, id, actor, func(r *record) error {
		if slices.Equal(clean, r.Tags) {
			return errUnchanged
		}
		r.Tags, r.UpdatedAt = clean, s.now()
		text := "tags: " + strings.Join(clean, ", ")
		if len(clean) == 0 {
			text = "tags taken off"
		}
		r.note(r.UpdatedAt, ChangeTagged, actor, text)
		r.tell(ChangeTagged, actor, nil)
		return nil
	})
}

// SetTicket links a ticket of another system; empty takes the link off.
// CodeInvalid if it is not an http or https address.
func (s *Service) SetTicket(ctx context.Context, id, actor, ticket string) (fleet.Incident, error) {
	ticket = strings.TrimSpace(ticket)
	u, err := url.Parse(ticket)
	if ticket != "" && (err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || len(ticket) > MaxTicket || clip(ticket, MaxTicket) != ticket) {
		return fleet.Incident{}, fleet.Errorf(fleet.CodeInvalid, "the ticket must be an http or https address of at most %d characters, without a password", MaxTicket).On("ticket")
	}
	return s.mutate(ctx, id, actor, func(r *record) error {
		if r.Ticket == ticket {
			return errUnchanged
		}
		r.Ticket, r.UpdatedAt = ticket, s.now()
		text := "ticket: " + ticket
		if ticket == "" {
			text = "ticket taken off"
		}
		r.note(r.UpdatedAt, ChangeTagged, actor, text)
		r.tell(ChangeTagged, actor, nil)
		return nil
	})
}
