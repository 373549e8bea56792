package operator

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"math/big"
	"strconv"
	"strings"
	"sync"
	"time"

	"cordon/internal/fleet"
)

// Challenge is a proof-of-work challenge in the form of ALTCHA: find the
// number below maxnumber whose SHA-256 with the salt before it is challenge.
type Challenge struct {
	Algorithm string `json:"algorithm" example:"SHA-256"`
	Challenge string `json:"challenge" doc:"SHA-256 of salt and number, hex."`
	MaxNumber int64  `json:"maxnumber"`
	Salt      string `json:"salt"`
	Signature string `json:"signature"`
}

// solution is what a client sends back, as base64 of JSON.
type solution struct {
	Algorithm string `json:"algorithm"`
	Challenge string `json:"challenge"`
	Number    int64  `json:"number"`
	Salt      string `json:"salt"`
	Signature string `json:"signature"`
}

const (
	challengeFor  = 5 * time.Minute
	challengeWork = 500_000 // about a second in a browser, half of it on average
	maxSpent      = 100_000
)

// puzzles makes challenges and takes each solution once.
type puzzles struct {
	key  []byte // the same in every process
	work int64
	mu   sync.Mutex
	used map[string]time.Time // signatures and when they end
}

func (z *puzzles) sign(challenge, salt string) string {
	mac := hmac.New(sha256.New, z.key)
	mac.Write([]byte(challenge + "\n" + salt))
	return hex.EncodeToString(mac.Sum(nil))
}

func (z *puzzles) make(now time.Time) (Challenge, error) {
	number, err := rand.Int(rand.Reader, big.NewInt(z.work))
	if err != nil {
		return Challenge{}, err
	}
	salt := strings.ToLower(randomText(12)) + "?expires=" + strconv.FormatInt(now.Add(challengeFor).Unix(), 10)
	c := Challenge{Algorithm: "SHA-256", Challenge: digest(salt + number.String()), MaxNumber: z.work, Salt: salt}
	c.Signature = z.sign(c.Challenge, salt)
	return c, nil
}

// solved says whether text is a fresh solution, and uses it up.
func (z *puzzles) solved(text string, now time.Time) bool {
	if text == "" || len(text) > 2048 {
		return false
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	var s solution
	if err != nil || json.Unmarshal(raw, &s) != nil || s.Algorithm != "SHA-256" {
		return false
	}
	if !hmac.Equal([]byte(z.sign(s.Challenge, s.Salt)), []byte(s.Signature)) || digest(s.Salt+strconv.FormatInt(s.Number, 10)) != s.Challenge {
		return false
	}
	_, stamp, _ := strings.Cut(s.Salt, "?expires=")
	unix, err := strconv.ParseInt(stamp, 10, 64)
	ends := time.Unix(unix, 0)
	if err != nil || !now.Before(ends) {
		return false
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	if _, spent := z.used[s.Signature]; spent {
		return false
	}
	if len(z.used) >= maxSpent {
		for signature, until := range z.used {
			if !now.Before(until) {
				delete(z.used, signature)
			}
		}
		if len(z.used) >= maxSpent {
			return false
		}
	}
	z.used[s.Signature] = ends
	return true
}

// Solve finds a challenge's answer: what a client does. It is here for
// programs and tests.
func Solve(c Challenge) (string, error) {
	for n := range c.MaxNumber + 1 {
		if digest(c.Salt+strconv.FormatInt(n, 10)) == c.Challenge {
			raw, err := json.Marshal(solution{c.Algorithm, c.Challenge, n, c.Salt, c.Signature})
			return base64.StdEncoding.EncodeToString(raw), err
		}
	}
	return "", fleet.Errorf(fleet.CodeInvalid, "the challenge has no answer")
}

// Challenge makes a proof-of-work challenge, good for five minutes and one
// sign-in.
func (d *Directory) Challenge() (Challenge, error) { return d.puzzles.make(d.deps.Clock()) }
