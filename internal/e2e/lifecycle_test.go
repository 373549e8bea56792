package e2e

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"cordon/internal/agent"
	"cordon/internal/identity"
)

// device is what the API says of a device's identity.
type device struct {
	State             string `json:"state"`
	CertificateSerial string `json:"certificate_serial"`
	ReadingsStored    uint64 `json:"readings_stored"`
	Connections       []any  `json:"connections"`
}

func (c *cordon) device(id string) (d device) {
	c.t.Helper()
	require.Equal(c.t, 200, c.call("GET", "/devices/"+id, nil, &d))
	return d
}

// The life of identities through the real program: many at once, by
// themselves, renewed under a new authority, and erased.
func TestIdentity_fromEnrolmentToErasure(t *testing.T) {
	c := up(t)
	c.bulk()
	c.fleetToken()
	c.agentRenews()
	c.erasure()
}

func (c *cordon) bulk() {
	t := c.t
	dir := t.TempDir()
	faulty, good := filepath.Join(dir, "faulty.csv"), filepath.Join(dir, "good.csv")
	require.NoError(t, os.WriteFile(faulty, []byte("id,site\nfine,north\nnot fine,north\nfine,south\n"), 0o600))
	problems := fails(t, "device", "enroll", "--csv", faulty, "--data", c.dir)
	require.Contains(t, problems, "line 3, id: ")
	require.Contains(t, problems, "line 4, id: fine is on line 2 already")
	require.Contains(t, problems, "nothing was enrolled")
	require.Equal(t, 404, c.call("GET", "/devices/fine", nil, nil))

	text := strings.Builder{}
	text.WriteString("id,site,credential,gateway\n")
	const many = 1500 // more than one request takes
	for i := range many {
		fmt.Fprintf(&text, "bulk-%04d,\"north\nwing\",,\n", i)
	}
	require.NoError(t, os.WriteFile(good, []byte(strings.ReplaceAll(text.String(), "\"north\nwing\"", "north")+"meter,north,token,\nsensor,north,,bulk-0000\n"), 0o600))
	out := filepath.Join(dir, "tokens.csv")
	c.run("device", "enroll", "--csv", good, "--out", out)
	raw, err := os.ReadFile(out)
	require.NoError(t, err)
	lines, err := csv.NewReader(strings.NewReader(string(raw))).ReadAll()
	require.NoError(t, err)
	require.Len(t, lines, many+3)
	require.Equal(t, []string{"id", "credential", "gateway", "token", "expires_at"}, lines[0])
	require.True(t, strings.HasPrefix(lines[1][3], "cordon_enroll_"))
	require.True(t, strings.HasPrefix(lines[many+1][3], "cordon_device_"))
	require.Equal(t, []string{"sensor", "gateway", "bulk-0000", "", ""}, lines[many+2])
	_, err = agent.Enroll(t.Context(), c.ready.URL, c.pool(), lines[1][3], filepath.Join(dir, "bulk"))
	require.NoError(t, err)
}

func (c *cordon) fleetToken() {
	t := c.t
	var made struct {
		Secret string `json:"secret"`
	}
	c.runJSON(&made, "fleet-token", "create", "line-", "--most", "2", "--cohort", "line")
	client, err := agent.NewClient(c.ready.URL, "", c.pool())
	require.NoError(t, err)
	for i, want := range []bool{true, true, false} {
		id, err := agent.EnrollWith(t.Context(), client.For(fmt.Sprintf("line-%d", i), fmt.Sprintf("SN%d", i)), made.Secret, filepath.Join(t.TempDir(), "id"))
		if !want {
			require.ErrorContains(t, err, "limit")
			continue
		}
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("line-%d", i), id.Device)
	}
}

func (c *cordon) agentRenews() {
	t := c.t
	var enrolled struct {
		Token string `json:"token"`
	}
	c.runJSON(&enrolled, "device", "enroll", "host")
	dir := filepath.Join(t.TempDir(), "agent")
	background(t, "agent", nil, binary(t), "agent", "--dir", dir, "--interval", "1s", "--auth-log", "/dev/null",
		"--url", c.ready.URL, "--ca", c.ready.CA, "--token", enrolled.Token)
	require.Eventually(t, func() bool { return len(c.device("host").Connections) == 1 }, 20*time.Second, 50*time.Millisecond)
	first := c.device("host").CertificateSerial

	var keys struct {
		Items []identity.Authority `json:"items"`
	}
	c.runJSON(&keys, "keys", "rotate-ca")
	require.Len(t, keys.Items, 2)
	old := keys.Items[0].ID
	require.Contains(t, fails(t, "keys", "retire-ca", old, "--reason", "routine", "--data", c.dir), "let them renew first")
	c.run("device", "rotate", "host", "--reason", "routine")
	require.Eventually(t, func() bool {
		d := c.device("host")
		return d.CertificateSerial != first && len(d.Connections) == 1
	}, 20*time.Second, 50*time.Millisecond, "the agent has a new certificate and is connected with it")
	require.FileExists(t, filepath.Join(dir, "renewed.pem"))
	c.run("keys", "retire-ca", old, "--reason", "routine", "--force")
	stored := c.device("host").ReadingsStored
	require.Eventually(t, func() bool { return c.device("host").ReadingsStored > stored }, 20*time.Second, 50*time.Millisecond)
	again, err := agent.Load(dir)
	require.NoError(t, err)
	conn, err := agent.Dial(again, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer conn.Close()
	require.Eventually(t, conn.IsConnected, 10*time.Second, 10*time.Millisecond, "a restarted agent has the renewed identity")
	// The dashboard's certificate is of the new authority too.
	c.connect()
	var log struct {
		Items []struct {
			Act    string `json:"act"`
			Target string `json:"target"`
		} `json:"items"`
	}
	require.Equal(t, 200, c.call("GET", "/operator-log", nil, &log))
	acts := map[string]bool{}
	for _, e := range log.Items {
		acts[e.Act+" "+e.Target] = true
	}
	require.True(t, acts["retire-key "+old], "the operator log has it: %v", acts)
	require.True(t, acts["rotate-device host"], "%v", acts)
}

func (c *cordon) erasure() {
	t := c.t
	conn := c.enrol("gone")
	js, err := jetstream.New(conn)
	require.NoError(t, err)
	for seq := uint64(1); seq <= 50; seq++ {
		_, err := js.Publish(t.Context(), "fleet.telemetry.gone", telemetry(seq, 50))
		require.NoError(t, err)
	}
	_, err = js.Publish(t.Context(), "fleet.telemetry.gone", []byte("not telemetry"))
	require.NoError(t, err)
	require.Eventually(t, func() bool { return c.device("gone").ReadingsStored == 50 }, 20*time.Second, 50*time.Millisecond)
	c.run("device", "quarantine", "gone", "--reason", "test")

	dir := t.TempDir()
	file := filepath.Join(dir, "receipt.json")
	c.stop()
	stores := []string{"broker", "clickhouse"}
	for _, store := range stores { // a backup from before
		require.NoError(t, os.CopyFS(filepath.Join(dir, store), os.DirFS(filepath.Join(c.dir, store))))
	}
	c.start()
	require.Contains(t, fails(t, "device", "erase", "gone", "--reason", "x", "--data", c.dir), "--yes")
	c.run("device", "erase", "gone", "--reason", "its owner asked", "--yes", "--out", file)
	var s identity.Statement
	c.runJSON(&s, "device", "receipt", file, "--authority", c.ready.CA)
	deleted := map[string]uint64{}
	for _, p := range s.Places {
		require.Zero(t, p.Left, p.Place)
		deleted[p.Place] = p.Deleted
	}
	require.EqualValues(t, 50, deleted["clickhouse telemetry"], "%v", deleted)
	require.EqualValues(t, 1, deleted["clickhouse dead_letters"])
	require.EqualValues(t, 1, deleted["clickhouse device_last"])
	require.NotZero(t, deleted["clickhouse quarantines"])
	require.GreaterOrEqual(t, deleted["stream FLEET"], uint64(51))
	d := c.device("gone")
	require.Equal(t, "retired", d.State)
	require.Zero(t, d.ReadingsStored)

	// A receipt that was changed is none.
	raw, err := os.ReadFile(file)
	require.NoError(t, err)
	var r identity.Receipt
	require.NoError(t, json.Unmarshal(raw, &r))
	r.Payload = r.Payload[:len(r.Payload)-8] + "AAAAAAAA"
	_, err = r.Verify([]byte(r.Certificate))
	require.Error(t, err)

	// The ledger outlives a restart and a lost broker bucket: the copy is
	// beside the keys.
	require.FileExists(t, filepath.Join(c.dir, "keys", "erasures.json"))
	c.kill()
	c.start()
	var ledger struct {
		Items []identity.Erasure `json:"items"`
	}
	c.runJSON(&ledger, "device", "erasures")
	require.Len(t, ledger.Items, 1)
	require.Equal(t, identity.ErasureDone, ledger.Items[0].State)
	require.Zero(t, c.device("gone").ReadingsStored)
	fails(t, "device", "enroll", "gone", "--data", c.dir)

	// A restored backup brings the device back, and the ledger beside the keys
	// erases it again.
	c.stop()
	for _, store := range stores {
		require.NoError(t, os.RemoveAll(filepath.Join(c.dir, store)))
		require.NoError(t, os.CopyFS(filepath.Join(c.dir, store), os.DirFS(filepath.Join(dir, store))))
	}
	c.start()
	require.Eventually(t, func() bool {
		c.runJSON(&ledger, "device", "erasures")
		return len(ledger.Items) == 1 && ledger.Items[0].Replays == 1 && ledger.Items[0].State == identity.ErasureDone
	}, 60*time.Second, 200*time.Millisecond)
	require.Equal(t, "retired", c.device("gone").State)
	require.Zero(t, c.device("gone").ReadingsStored)
	s, err = ledger.Items[0].Receipt.Verify([]byte(ledger.Items[0].Receipt.Certificate))
	require.NoError(t, err)
	require.Contains(t, s.Places, identity.Place{Place: "clickhouse telemetry", Deleted: 50})
}
