package operator_test

import (
	"bufio"
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leodido/go-syslog/v4/rfc5424"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"cordon/internal/bus"
	"cordon/internal/bus/bustest"
	"cordon/internal/operator"
)

type logRig struct {
	*operator.Directory
	t    *testing.T
	bus  *bus.Bus
	keys string
}

// another is a second process on the same log.
func (r *logRig) another() *operator.Directory {
	r.t.Helper()
	key, err := operator.LogKey(filepath.Join(r.keys, "operator-log.key"))
	require.NoError(r.t, err)
	return operator.New(operator.DefaultConfig(), operator.Deps{
		Bus: r.bus, Log: slog.New(slog.DiscardHandler), Clock: time.Now, LogKey: key, LogAnchor: filepath.Join(r.keys, "operator-log.place"),
	})
}

func startLog(t *testing.T) *logRig {
	t.Helper()
	r := &logRig{t: t, bus: bustest.Start(t), keys: t.TempDir()}
	r.Directory = r.another()
	return r
}

func (r *logRig) write(d *operator.Directory, n int) {
	r.t.Helper()
	for i := range n {
		require.NoError(r.t, d.Audit(r.t.Context(), operator.Entry{Actor: "ada", Act: "comment-incident", Target: fmt.Sprintf("INC-%d", i), Outcome: "done", After: map[string]any{"said": "<&> \n line"}}))
	}
}

func (r *logRig) export() []string {
	r.t.Helper()
	var out bytes.Buffer
	require.NoError(r.t, r.ExportLog(r.t.Context(), &out))
	return strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
}

func (r *logRig) publicKey() string {
	r.t.Helper()
	raw, err := os.ReadFile(filepath.Join(r.keys, "operator-log.key.pub"))
	require.NoError(r.t, err)
	return strings.TrimSpace(string(raw))
}

func TestLog_verifies(t *testing.T) {
	r := startLog(t)
	empty, err := r.VerifyLog(t.Context())
	require.NoError(t, err)
	require.True(t, empty.OK)
	r.write(r.Directory, 250)
	require.NoError(t, r.SignHead(t.Context()))
	got, err := r.VerifyLog(t.Context(), r.publicKey())
	require.NoError(t, err)
	require.Empty(t, got.Faults)
	require.True(t, got.OK)
	require.EqualValues(t, 250, got.Entries)
	require.EqualValues(t, 3, got.Heads, "every hundred entries, and the last")
	require.EqualValues(t, 253, got.LastSeq)

	wrong, err := r.VerifyLog(t.Context(), strings.Repeat("0", 64))
	require.NoError(t, err)
	require.False(t, wrong.OK)
	require.Equal(t, operator.FaultSignature, wrong.Faults[0].Kind)
}

// TestLog_everyChangeIsFound changes, drops, swaps and inserts at every place
// of an export.
func TestLog_everyChangeIsFound(t *testing.T) {
	r := startLog(t)
	r.write(r.Directory, 12)
	require.NoError(t, r.SignHead(t.Context()))
	lines := r.export()
	require.Len(t, lines, 13)
	check := func(lines []string) operator.Verdict {
		v, err := operator.VerifyExport(strings.NewReader(strings.Join(lines, "\n")), r.publicKey())
		require.NoError(t, err)
		return v
	}
	require.True(t, check(lines).OK)
	for i := range lines {
		changed := append([]string{}, lines...)
		changed[i] = strings.Replace(strings.Replace(changed[i], `"ada"`, `"eve"`, 1), `"signature":"`, `"signature":"00`, 1)
		v := check(changed)
		require.False(t, v.OK, "changed %d", i)
		require.EqualValues(t, i+1, v.Faults[0].Seq)

		if i+1 < len(lines) {
			missing := append(append([]string{}, lines[:i]...), lines[i+1:]...)
			v = check(missing)
			require.False(t, v.OK, "missing %d", i)
			require.Equal(t, operator.FaultMissing, v.Faults[0].Kind)
			require.EqualValues(t, i+1, v.Faults[0].Seq)

			swapped := append([]string{}, lines...)
			swapped[i], swapped[i+1] = swapped[i+1], swapped[i]
			v = check(swapped)
			require.False(t, v.OK, "reordered %d", i)
			require.Contains(t, fmt.Sprint(v.Faults), operator.FaultReordered)
		}
		twice := append(append(append([]string{}, lines[:i+1]...), lines[i]), lines[i+1:]...)
		require.False(t, check(twice).OK, "repeated %d", i)
	}
	require.False(t, check(append(lines, "rubbish")).OK)
}

// TestLog_endThatWasCutOff: the broker's files were replaced by older ones.
func TestLog_endThatWasCutOff(t *testing.T) {
	r := startLog(t)
	r.write(r.Directory, 5)
	require.NoError(t, r.SignHead(t.Context()))
	stream, err := r.bus.Core.Stream(t.Context(), bus.StreamOperatorLog)
	require.NoError(t, err)
	last := stream.CachedInfo().State.LastSeq
	require.Error(t, stream.DeleteMsg(t.Context(), last), "the stream lets nobody delete")
	require.Error(t, stream.Purge(t.Context()))
	kept := r.export()[:3]
	require.NoError(t, r.bus.Core.DeleteStream(t.Context(), bus.StreamOperatorLog))
	_, err = r.bus.Core.CreateStream(t.Context(), jetstream.StreamConfig{Name: bus.StreamOperatorLog, Subjects: []string{bus.SubjectOperatorLog}})
	require.NoError(t, err)
	for _, line := range kept {
		_, err := r.bus.Core.Publish(t.Context(), bus.SubjectOperatorLog, []byte(line))
		require.NoError(t, err)
	}
	v, err := r.another().VerifyLog(t.Context(), r.publicKey())
	require.NoError(t, err)
	require.False(t, v.OK)
	require.Equal(t, operator.FaultMissing, v.Faults[0].Kind)
	require.EqualValues(t, 4, v.Faults[0].Seq)
}

// TestLog_twoProcesses write at the same time, and one of them "crashes"
// between any two entries: the chain stays one.
func TestLog_twoProcesses(t *testing.T) {
	r := startLog(t)
	var writing sync.WaitGroup
	for range 3 {
		d := r.another()
		writing.Go(func() { r.write(d, 40) })
	}
	writing.Wait()
	r.write(r.another(), 1)
	v, err := r.another().VerifyLog(t.Context())
	require.NoError(t, err)
	require.Empty(t, v.Faults)
	require.EqualValues(t, 121, v.Entries)
}

func TestLog_listsNewestFirst(t *testing.T) {
	r := startLog(t)
	r.write(r.Directory, 30)
	require.NoError(t, r.SignHead(t.Context()))
	var targets []string
	for before := uint64(0); ; {
		lines, next, total, err := r.Log(t.Context(), operator.LogFilter{Actor: "ada"}, before, 7)
		require.NoError(t, err)
		require.EqualValues(t, 31, total)
		for _, l := range lines {
			targets = append(targets, l.Entry.Target)
		}
		if before = next; next == 0 {
			break
		}
	}
	require.Len(t, targets, 30)
	require.Equal(t, "INC-29", targets[0])
	require.Equal(t, "INC-0", targets[29])
	lines, _, _, err := r.Log(t.Context(), operator.LogFilter{Target: "INC-7"}, 0, 10)
	require.NoError(t, err)
	require.Len(t, lines, 1)
}

func TestLog_forwardedAsSyslog(t *testing.T) {
	r := startLog(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	require.NoError(t, r.Audit(t.Context(), operator.Entry{Actor: "ada", Act: "revoke-device", Target: `d"1]\`, Outcome: "refused"}))
	r.write(r.Directory, 3)
	require.NoError(t, r.SignHead(t.Context()))
	r.runUntilEnd(func() error { return r.Forward(t.Context(), "tcp://"+listener.Addr().String(), "") })
	conn, err := listener.Accept()
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
	in := bufio.NewReader(conn)
	verifier := operator.NewVerifier(r.publicKey())
	for i := range 5 {
		size, err := in.ReadString(' ')
		require.NoError(t, err)
		n, err := strconv.Atoi(strings.TrimSpace(size))
		require.NoError(t, err)
		raw := make([]byte, n)
		_, err = readFull(in, raw)
		require.NoError(t, err)
		parsed, err := rfc5424.NewParser().Parse(raw)
		require.NoError(t, err, string(raw))
		message := parsed.(*rfc5424.SyslogMessage)
		require.Equal(t, "cordon", *message.Appname)
		data := (*message.StructuredData)["cordon@32473"]
		require.Equal(t, strconv.Itoa(i+1), data["seq"])
		if i == 0 {
			require.Equal(t, "revoke-device", *message.MsgID)
			require.Equal(t, `d"1]\`, data["target"])
			require.EqualValues(t, 4, *message.Severity)
		}
		verifier.Add([]byte(*message.Message))
	}
	require.True(t, verifier.Verdict().OK, "what a collector kept can be verified")
}

func readFull(in *bufio.Reader, raw []byte) (int, error) {
	for n := 0; n < len(raw); {
		got, err := in.Read(raw[n:])
		if err != nil {
			return n, err
		}
		n += got
	}
	return len(raw), nil
}

func (r *logRig) runUntilEnd(part func() error) {
	done := make(chan error, 1)
	go func() { done <- part() }()
	r.t.Cleanup(func() {
		select {
		case err := <-done:
			require.NoError(r.t, err)
		case <-time.After(10 * time.Second):
			r.t.Error("did not end")
		}
	})
}
