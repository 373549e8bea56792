package operator

import (
	"context"
	_ "embed"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/alexedwards/argon2id"
	passwordvalidator "github.com/wagslane/go-password-validator"

	"cordon/internal/fleet"
)

// Limits of a password.
const (
	minPassword = 12
	maxPassword = 256
	minEntropy  = 55 // bits, as go-password-validator estimates them
)

//go:embed blocklist.txt
var blocklistText string

// blocklist holds the letters of words that passwords are made of too often.
var blocklist = strings.Fields(blocklistText)

// CheckPassword says why a password is too easy to guess, and what would be
// better.
func CheckPassword(name, password string) error {
	invalid := func(format string, args ...any) error {
		return fleet.Errorf(fleet.CodeInvalid, format, args...).On("body.new")
	}
	switch length := utf8.RuneCountInString(password); {
	case length < minPassword:
		return invalid("the password has %d characters; use at least %d, for example four random words", length, minPassword)
	case len(password) > maxPassword:
		return invalid("the password has %d bytes; the limit is %d", len(password), maxPassword)
	}
	plain := letters(password)
	if len(name) > 2 && strings.Contains(plain, letters(name)) {
		return invalid("the password contains your name; use four random words instead")
	}
	for _, word := range blocklist {
		// A common word with little else around it falls to the first guesses.
		if strings.Contains(plain, word) && len(plain)-len(word) < 8 {
			return invalid("the password is little more than the common word %q; use four random words instead", word)
		}
	}
	if err := passwordvalidator.Validate(password, minEntropy); err != nil {
		return invalid("the password is too easy to guess; make it longer, for example with another random word")
	}
	return nil
}

var leet = strings.NewReplacer("0", "o", "1", "i", "3", "e", "4", "a", "5", "s", "7", "t", "8", "b", "@", "a", "$", "s", "!", "i")

// letters reduces a password to what it was made of: P@ssw0rd2024 → password.
func letters(password string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' {
			return r
		}
		return -1
	}, leet.Replace(strings.TrimRight(strings.ToLower(password), "0123456789!.?*#")))
}

// Cost is what one password hash costs.
type Cost struct {
	MemoryKiB, Passes uint32
}

// hasher hashes passwords, a few at a time: each hash needs memory.
type hasher struct {
	params *argon2id.Params
	slots  chan struct{}
	dummy  string // what an unknown name is compared with
}

func newHasher(c Cost) *hasher {
	if c == (Cost{}) {
		c = DefaultConfig().Hashing
	}
	h := &hasher{
		params: &argon2id.Params{Memory: c.MemoryKiB, Iterations: c.Passes, Parallelism: 1, SaltLength: 16, KeyLength: 32},
		slots:  make(chan struct{}, 4),
	}
	// Salt and key are never matched; only the work matters.
	h.dummy = fmt.Sprintf("$argon2id$v=19$m=%d,t=%d,p=1$%s$%s", c.MemoryKiB, c.Passes,
		"AAAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	return h
}

func (h *hasher) enter(ctx context.Context) error {
	select {
	case h.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fleet.Errorf(fleet.CodeUnavailable, "too many sign-ins at once; try again")
	}
}

func (h *hasher) hash(ctx context.Context, password string) (string, error) {
	if err := h.enter(ctx); err != nil {
		return "", err
	}
	defer func() { <-h.slots }()
	hash, err := argon2id.CreateHash(password, h.params)
	if err != nil {
		return "", fmt.Errorf("hash password: %w", err)
	}
	return hash, nil
}

// matches compares; an empty hash costs the same and never matches.
func (h *hasher) matches(ctx context.Context, password, hash string) (bool, error) {
	if err := h.enter(ctx); err != nil {
		return false, err
	}
	defer func() { <-h.slots }()
	known := hash != ""
	if !known {
		hash = h.dummy
	}
	ok, err := argon2id.ComparePasswordAndHash(password, hash)
	if err != nil {
		return false, fmt.Errorf("compare password: %w", err)
	}
	return ok && known, nil
}
