package api

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"github.com/stretchr/testify/require"

	"cordon/internal/operator"
)

// hostile are values that no parameter expects.
var hostile = []any{
	"", "a", strings.Repeat("x", 5000), "'; DROP TABLE telemetry; --", "' OR 1=1 --", "<script>alert(1)</script>", "../../../../etc/passwd",
	"%00", "\x00", "a\r\nSet-Cookie: x=y", "${jndi:ldap://x}", "{{7*7}}", "*", ">", "cordon.>", "$KV.operator.>", "\u202e", "\xff\xfe", "NaN", "Infinity",
	0, -1, 1 << 31, -1 << 63, 1.5, 1e308, true, nil,
	[]any{},
	map[string]any{},
	[]any{[]any{[]any{}}},
	map[string]any{"a": map[string]any{"b": nil}},
	"9999999999999999999999", "0x10", "2026-02-30T00:00:00Z", "0000-01-01T00:00:00Z", "292277026596-12-04T15:30:07Z", "INC-99999999999999999999", "-",
}

// TestFuzz_everyOperation sends random, boundary and wrong-typed values to
// every operation of the document: no answer is a 5xx, none hangs and none
// shows Cordon's insides.
func TestFuzz_everyOperation(t *testing.T) {
	r := start(t)
	r.fill()
	admin := r.token(operator.Admin)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	registry := r.huma.OpenAPI().Components.Schemas
	sent, byStatus := 0, map[int]int{}
	for id, op := range operations(r.API) {
		if id == "stream-events" || id == "sign-out" {
			continue
		}
		t.Run(id, func(t *testing.T) {
			for range 40 {
				path, body := fuzzed(random, registry, op)
				got := r.request(op.Method, Prefix+path, body, func(req *http.Request) {
					req.Header.Set("Authorization", "Bearer "+admin)
					if kind := contentType(op); kind != "" && random.IntN(8) > 0 {
						req.Header.Set("Content-Type", kind)
					}
					if random.IntN(8) == 0 {
						req.Header.Set("If-Match", printableOnly(fmt.Sprint(pick(random))))
					}
					if random.IntN(8) == 0 {
						req.Header.Set("Idempotency-Key", printableOnly(fmt.Sprint(pick(random))))
					}
				})
				sent++
				byStatus[got.status]++
				if got.status == http.StatusServiceUnavailable && absentParts[id] {
					continue
				}
				require.Less(t, got.status, 500, "%s %s %v: %s", op.Method, path, body, got.body)
				requireNoInsides(t, got)
			}
		})
	}
	t.Logf("%d requests, by status %v", sent, byStatus)
}

// absentParts are operations that ask a part which this rig does not run; they
// say so.
var absentParts = map[string]bool{"backtest-rule": true}

func requireNoInsides(t *testing.T, a answer) {
	t.Helper()
	if a.status < 400 {
		return
	}
	for _, inside := range []string{"goroutine ", ".go:", "panic", "runtime error", "nats:", "clickhouse", "Code: ", "DB::", "/work/", "$argon2id", "0x1"} {
		if inside == "0x1" && strings.Contains(string(a.body), "0x10") {
			continue // it was sent
		}
		require.NotContains(t, string(a.body), inside)
	}
	require.Equal(t, "application/problem+json", a.header.Get("Content-Type"), "%d %s", a.status, a.body)
}

func pick(random *rand.Rand) any { return hostile[random.IntN(len(hostile))] }

func printableOnly(text string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return -1
		}
		return c
	}, text)
}

func contentType(op *huma.Operation) string {
	if op.RequestBody != nil {
		for kind := range op.RequestBody.Content {
			return kind
		}
	}
	return ""
}

func fuzzed(random *rand.Rand, registry huma.Registry, op *huma.Operation) (path string, body any) {
	path = op.Path
	query := url.Values{}
	for _, p := range op.Parameters {
		var text string
		if random.IntN(3) == 0 {
			text = fmt.Sprint(pick(random))
		} else {
			text = fmt.Sprint(valid(random, registry, p.Schema, 0))
		}
		switch p.In {
		case "path":
			if random.IntN(2) == 0 {
				text = map[bool]string{true: "INC-1", false: "d1"}[strings.HasPrefix(path, "/incidents")]
			}
			if text == "" {
				text = "x"
			}
			path = strings.Replace(path, "{"+p.Name+"}", url.PathEscape(text), 1)
		case "query":
			if random.IntN(2) == 0 || p.Required {
				query.Add(p.Name, text)
			}
		}
	}
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	if op.RequestBody == nil {
		return path, nil
	}
	for kind, media := range op.RequestBody.Content {
		if !strings.Contains(kind, "json") || media.Schema == nil {
			return path, []string{"id,owner\nd1,x", "id\n", "", "id,id\n", "id,owner\n\"", "\x00,id\n1,2", "id,tags\nd1," + strings.Repeat("a;", 9000)}[random.IntN(7)]
		}
		if random.IntN(6) == 0 {
			return path, []string{"", "{", "[]", "null", `"x"`, `{"a":`, strings.Repeat("[", 5000), "\xff", `{"name":1e999}`, strings.Repeat(`{"a":`, 2000)}[random.IntN(10)]
		}
		value := valid(random, registry, media.Schema, 0)
		if object, ok := value.(map[string]any); ok && len(object) > 0 && random.IntN(3) > 0 {
			for name := range object {
				object[name] = pick(random)
				if random.IntN(2) == 0 {
					break
				}
			}
		}
		raw, err := json.Marshal(value)
		if err != nil {
			return path, "{}"
		}
		return path, string(raw)
	}
	return path, nil
}

// valid makes a value that a schema allows, mostly.
func valid(random *rand.Rand, registry huma.Registry, s *huma.Schema, depth int) any {
	if s == nil || depth > 6 {
		return nil
	}
	if s.Ref != "" {
		return valid(random, registry, registry.SchemaFromRef(s.Ref), depth+1)
	}
	if len(s.Enum) > 0 {
		return s.Enum[random.IntN(len(s.Enum))]
	}
	switch s.Type {
	case huma.TypeBoolean:
		return random.IntN(2) == 0
	case huma.TypeInteger, huma.TypeNumber:
		return []int{0, 1, -1, 50, 500, 501, 5000, 1 << 40}[random.IntN(8)]
	case huma.TypeArray:
		items := []any{}
		for range random.IntN(3) {
			items = append(items, valid(random, registry, s.Items, depth+1))
		}
		return items
	case huma.TypeObject:
		object := map[string]any{}
		for name, property := range s.Properties {
			if random.IntN(4) > 0 {
				object[name] = valid(random, registry, property, depth+1)
			}
		}
		return object
	}
	if s.Format == "date-time" {
		return "2026-11-24T00:00:00Z"
	}
	return []string{"d1", "INC-1", "hot", "ann", "x", "north"}[random.IntN(6)]
}
