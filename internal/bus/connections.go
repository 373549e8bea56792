package bus

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"github.com/nats-io/nuid"

	"cordon/internal/fleet"
)

const (
	connzPage = 8192 // a broker goes through all of its connections for every page
	// brokerWait is how long a broker may take to answer before it counts as
	// silent.
	brokerWait = time.Second
)

// restrictedSuffix marks the broker user of a restricted device. Device ids
// can't hold a slash, so the broker's own list of connections says which
// credential each one was admitted on.
const restrictedSuffix = "/restricted"

// User is the broker user name of a device's connection.
func User(device string, restricted bool) string {
	if restricted {
		return device + restrictedSuffix
	}
	return device
}

// ParseUser is the inverse of User.
func ParseUser(user string) (device string, restricted bool) {
	return strings.CutSuffix(user, restrictedSuffix)
}

// Live is a connection as its broker reports it.
type Live struct {
	fleet.Connection
	Device     string
	Restricted bool   // admitted to the quarantine subjects only
	ClientID   string // MQTT client id
	InMsgs     int64  // from the device
	InBytes    int64
	OutMsgs    int64
	OutBytes   int64
}

// Broker is a server of the cluster.
type Broker struct {
	ID, Name string
	Answered bool // false: another broker knows it, but it did not answer
}

type serverInfo struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

type apiError struct {
	Description string `json:"description"`
}

type connzRequest struct {
	Auth    bool   `json:"auth"`
	Account string `json:"acc"`
	User    string `json:"user,omitempty"`
	Offset  int    `json:"offset"`
	Limit   int    `json:"limit"`
}

type connzReply struct {
	Server serverInfo `json:"server"`
	Error  *apiError  `json:"error"`
	Data   struct {
		Total       int         `json:"total"`
		Connections []connzConn `json:"connections"`
	} `json:"data"`
}

type connzConn struct {
	CID        uint64    `json:"cid"`
	Type       string    `json:"type"`
	IP         string    `json:"ip"`
	Port       int       `json:"port"`
	Start      time.Time `json:"start"`
	InMsgs     int64     `json:"in_msgs"`
	OutMsgs    int64     `json:"out_msgs"`
	InBytes    int64     `json:"in_bytes"`
	OutBytes   int64     `json:"out_bytes"`
	User       string    `json:"authorized_user"`
	MQTTClient string    `json:"mqtt_client"`
}

// Protocol names a broker's client type as Cordon does.
func Protocol(clientType string) string {
	if clientType == "nats" || clientType == "" {
		return "nats"
	}
	return strings.ToLower(clientType) // mqtt, websocket
}

// Brokers asks every server of the cluster who it is and whom it is connected
// to. A server that only others name is in the list, not answered.
func (b *Bus) Brokers(ctx context.Context) ([]Broker, error) {
	type routez struct {
		Server serverInfo `json:"server"`
		Data   struct {
			Routes []struct {
				ID   string `json:"remote_id"`
				Name string `json:"remote_name"`
			} `json:"routes"`
		} `json:"data"`
	}
	inbox := b.System.NewInbox()
	sub, err := b.System.SubscribeSync(inbox)
	if err != nil {
		return nil, fmt.Errorf("ask brokers: %w", err)
	}
	defer sub.Unsubscribe() //nolint:errcheck // the connection is gone then
	if err := b.System.PublishRequest("$SYS.REQ.SERVER.PING.ROUTEZ", inbox, nil); err != nil {
		return nil, fmt.Errorf("ask brokers: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, brokerWait)
	defer cancel()
	var list []Broker
	index := map[string]int{}
	add := func(id, name string, answered bool) {
		i, known := index[id]
		if !known {
			i = len(list)
			index[id] = i
			list = append(list, Broker{ID: id, Name: name})
		}
		list[i].Answered = list[i].Answered || answered
	}
	complete := func() bool {
		for _, broker := range list {
			if !broker.Answered {
				return false
			}
		}
		return len(list) > 0
	}
	for !complete() {
		msg, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			if len(list) == 0 {
				return nil, fmt.Errorf("ask brokers: %w", err)
			}
			break // the list says who is missing
		}
		var reply routez
		if err := json.Unmarshal(msg.Data, &reply); err != nil {
			return nil, fmt.Errorf("decode answer of broker: %w", err)
		}
		add(reply.Server.ID, reply.Server.Name, true)
		for _, route := range reply.Data.Routes {
			add(route.ID, route.Name, false)
		}
	}
	return list, nil
}

// Connections asks every broker for the connections of a device, on full and
// on restricted permissions. A broker that does not answer is in the proofs
// with Answered false; an error means that none could be asked.
func (b *Bus) Connections(ctx context.Context, device string) ([]fleet.Connection, []fleet.BrokerProof, error) {
	live, proofs, err := b.Live(ctx, device)
	connections := make([]fleet.Connection, len(live))
	for i, l := range live {
		connections[i] = l.Connection
	}
	return connections, proofs, err
}

// Live is Connections with what else the broker says; an empty device means
// all devices.
func (b *Bus) Live(ctx context.Context, device string) ([]Live, []fleet.BrokerProof, error) {
	if device == "" {
		return b.LiveUsers(ctx, "")
	}
	return b.LiveUsers(ctx, User(device, false), User(device, true))
}

// LiveUsers is Live for broker users (User). A broker goes through all of its
// connections for each.
func (b *Bus) LiveUsers(ctx context.Context, users ...string) ([]Live, []fleet.BrokerProof, error) {
	brokers, err := b.Brokers(ctx)
	if err != nil {
		return nil, nil, err
	}
	var mu sync.Mutex
	var live []Live
	proofs := make([]fleet.BrokerProof, len(brokers))
	var group sync.WaitGroup
	for i, broker := range brokers {
		proofs[i] = fleet.BrokerProof{ServerID: broker.ID, ServerName: broker.Name}
		if !broker.Answered {
			continue
		}
		group.Go(func() {
			found, err := b.connz(ctx, broker.ID, users)
			if err != nil {
				return // not answered
			}
			proofs[i].Answered, proofs[i].Connections, proofs[i].At = true, len(found), time.Now().UTC()
			mu.Lock()
			defer mu.Unlock()
			live = append(live, found...)
		})
	}
	group.Wait()
	return live, proofs, nil
}

// connz lists one broker's connections of the given users.
func (b *Bus) connz(ctx context.Context, serverID string, users []string) ([]Live, error) {
	var live []Live
	lists := make([][]Live, len(users))
	errs := make([]error, len(users))
	var group sync.WaitGroup
	for i, user := range users {
		group.Go(func() { lists[i], errs[i] = b.connzOf(ctx, serverID, user) })
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	for _, list := range lists {
		live = append(live, list...)
	}
	return live, nil
}

func (b *Bus) connzOf(ctx context.Context, serverID, user string) ([]Live, error) {
	var live []Live
	for offset := 0; ; {
		var reply connzReply
		err := b.ask(ctx, "$SYS.REQ.SERVER."+serverID+".CONNZ", connzRequest{
			Auth: true, Account: AccountDevices, User: user, Offset: offset, Limit: connzPage,
		}, &reply)
		if err != nil {
			return nil, err
		}
		if reply.Error != nil {
			return nil, fmt.Errorf("list connections: %s", reply.Error.Description)
		}
		for _, c := range reply.Data.Connections {
			if l, ok := c.live(reply.Server.ID); ok {
				live = append(live, l)
			}
		}
		offset += len(reply.Data.Connections)
		if len(reply.Data.Connections) == 0 || offset >= reply.Data.Total {
			return live, nil
		}
	}
}

// live leaves out Cordon's own connections, whose users are broker keys.
func (c connzConn) live(serverID string) (Live, bool) {
	device, restricted := ParseUser(c.User)
	if fleet.CheckDeviceID(device) != nil || nkeys.IsValidPublicUserKey(c.User) {
		return Live{}, false
	}
	return Live{
		Connection: fleet.Connection{
			ServerID: serverID, CID: c.CID, Protocol: Protocol(c.Type),
			Address: net.JoinHostPort(c.IP, strconv.Itoa(c.Port)), StartedAt: c.Start.UTC(),
		},
		Device: device, Restricted: restricted, ClientID: c.MQTTClient,
		InMsgs: c.InMsgs, InBytes: c.InBytes, OutMsgs: c.OutMsgs, OutBytes: c.OutBytes,
	}, true
}

// ErrGone says that a broker does not know the connection, or no longer.
var ErrGone = errors.New("connection is gone")

// Kick closes one connection. ErrGone: there was none.
func (b *Bus) Kick(ctx context.Context, serverID string, cid uint64) error {
	var reply struct {
		Error *apiError `json:"error"`
	}
	err := b.ask(ctx, "$SYS.REQ.SERVER."+serverID+".KICK", map[string]uint64{"cid": cid}, &reply)
	if err != nil {
		return err
	}
	if reply.Error != nil && strings.Contains(reply.Error.Description, "no such client") {
		return ErrGone
	}
	if reply.Error != nil {
		return fmt.Errorf("kick connection: %s", reply.Error.Description)
	}
	return nil
}

// DropSession makes every broker forget the MQTT session of a client without
// publishing its will, and close its connection.
//
// A broker publishes a client's will when it closes the connection, a kick
// included. The one case in which it does not is a client that connects with
// the same id to another broker of the cluster: the first broker then drops
// session and will. It hears of that by the other broker's store
// acknowledgement, which DropSession sends in its place (nats-server,
// server/mqtt.go, processSessionPersist). Brokers without the session ignore
// it.
func (b *Bus) DropSession(ctx context.Context, clientID string) error {
	ctx, cancel := context.WithTimeout(ctx, brokerWait)
	defer cancel()
	subject := "$MQTT.JSA.CORDON.SP." + sessionHash(clientID) + "." + nuid.Next()
	if err := b.Devices.Publish(subject, []byte(`{"stream":"$MQTT_sess","seq":9223372036854775807}`)); err != nil {
		return fmt.Errorf("drop mqtt session: %w", err)
	}
	if err := b.Devices.FlushWithContext(ctx); err != nil {
		return fmt.Errorf("drop mqtt session: %w", err)
	}
	return nil
}

// sessionHash is how brokers name a session in subjects: 8 digits of base 62.
func sessionHash(clientID string) string {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	sum := sha256.Sum256([]byte(clientID))
	for i := range sum {
		sum[i] = digits[int(sum[i])%len(digits)]
	}
	return string(sum[:8])
}

func (b *Bus) ask(ctx context.Context, subject string, request, reply any) error {
	return ask(ctx, b.System, subject, request, reply)
}

func ask(ctx context.Context, conn *nats.Conn, subject string, request, reply any) error {
	data, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("encode request %s: %w", subject, err)
	}
	ctx, cancel := context.WithTimeout(ctx, brokerWait)
	defer cancel()
	msg, err := conn.RequestWithContext(ctx, subject, data)
	if err != nil {
		return fmt.Errorf("request %s: %w", subject, err)
	}
	if err := json.Unmarshal(msg.Data, reply); err != nil {
		return fmt.Errorf("decode answer to %s: %w", subject, err)
	}
	return nil
}

// SubjectBaselines is asked with {"device"} in CORDON; the detector answers
// with the states of the device's baselines.
const SubjectBaselines = "cordon.detect.baselines"

// Baselines asks the detector how far it knows a device. Code: unavailable.
func Baselines(ctx context.Context, b *Bus, device string) ([]fleet.BaselineState, error) {
	var states []fleet.BaselineState
	if err := ask(ctx, b.Cordon, SubjectBaselines, map[string]string{"device": device}, &states); err != nil {
		return nil, fleet.Errorf(fleet.CodeUnavailable, "the detector does not answer: %w", err)
	}
	return states, nil
}
