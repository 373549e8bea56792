package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"cordon/internal/fleet"
)

// historyTable says how a history is stored: its columns and how the values
// of a row come out of an entry's JSON.
type historyTable struct {
	name    string
	columns []column
	values  func(r *HistoryRow) ([]any, error)
}

// revisioned are the first columns of every history but findings.
var revisioned = []column{{"id", text}, {"revision", number}, {"at", instant}, {"deleted", flag}}

var histories = map[History]historyTable{
	HistoryFinding: {
		"findings",
		[]column{
			{"id", text},
			{"revision", number},
			{"at", instant},
			{"device", word},
			{"rule_id", word},
			{"rule_version", word},
			{"mode", word},
			{"evidence", word},
			{"severity", word},
			{"technique", word},
			{"actor", text},
			{"window_start", instant},
			{"window_end", instant},
			{"received_at", instant},
			{"stream_seq", number},
			{"cleared", flag},
			{"json", text},
		},
		findingValues,
	},
	HistoryIncident: {
		"incidents",
		append(revisioned[:4:4], column{"device", word}, column{"severity", word}, column{"state", word}, column{"verdict", word}, column{"opened_at", instant}, column{"json", text}),
		func(r *HistoryRow) ([]any, error) {
			v, err := decode[fleet.Incident](r)
			return append(revision(r, v.ID), v.Device, string(v.Severity), string(v.State), string(v.Verdict), v.OpenedAt, string(r.JSON)), err
		},
	},
	HistoryQuarantine: {
		"quarantines",
		append(revisioned[:4:4], column{"device", word}, column{"level", word}, column{"state", word}, column{"actor", text}, column{"requested_at", instant}, column{"json", text}),
		func(r *HistoryRow) ([]any, error) {
			v, err := decode[fleet.Quarantine](r)
			if v.Device == "" {
				v.Device = r.Key
			}
			return append(revision(r, v.ID), v.Device, string(v.Level), string(v.State), v.Actor, v.RequestedAt, string(r.JSON)), err
		},
	},
	HistoryDevice: {
		"devices",
		append(revisioned[:4:4], column{"state", word}, column{"cohort", word}, column{"site", word}, column{"json", text}),
		deviceValues,
	},
	HistoryRule: {
		"rules",
		append(revisioned[:4:4], column{"mode", word}, column{"actor", text}, column{"json", text}),
		func(r *HistoryRow) ([]any, error) {
			v, err := decode[fleet.RuleChange](r)
			return append(revision(r, v.ID), string(v.Mode), v.Actor, string(r.JSON)), err
		},
	},
	HistoryDelivery: {
		"deliveries",
		append(revisioned[:4:4], column{"receiver", word}, column{"incident", text}, column{"state", word}, column{"created_at", instant}, column{"json", text}),
		func(r *HistoryRow) ([]any, error) {
			v, err := decode[fleet.Delivery](r)
			return append(revision(r, v.ID), v.Receiver, v.Incident, v.State, v.CreatedAt, string(r.JSON)), err
		},
	},
}

// InsertHistory stores revisions of entries; see InsertTelemetry. A row whose
// JSON does not fit its history is a permanent error that names the row.
func (s *Store) InsertHistory(ctx context.Context, h History, token string, rows []HistoryRow) error {
	if len(rows) == 0 {
		return nil
	}
	ht, ok := histories[h]
	if !ok {
		return fmt.Errorf("insert history %q: there is none of this name: %w", h, ErrBlock)
	}
	t := newTable(ht.columns)
	for i := range rows {
		values, err := ht.values(&rows[i])
		if err != nil {
			return fmt.Errorf("insert into %s: row %d, key %s, revision %s: %w: %w",
				ht.name, i, strconv.Quote(rows[i].Key), strconv.FormatUint(rows[i].Revision, 10), ErrBlock, err)
		}
		t.add(values...)
	}
	return s.insert(ctx, ht.name, token, t.input())
}

// decode reads an entry; a deleted one is empty.
func decode[T any](r *HistoryRow) (v T, err error) {
	if r.Deleted {
		return v, nil
	}
	if err := json.Unmarshal(r.JSON, &v); err != nil {
		return v, fmt.Errorf("decode %T: %w", v, err)
	}
	return v, nil
}

// revision returns the values of the revisioned columns; an entry without an
// id goes by its key.
func revision(r *HistoryRow, id string) []any {
	if id == "" {
		id = r.Key
	}
	return []any{id, r.Revision, r.At, r.Deleted}
}

func findingValues(r *HistoryRow) ([]any, error) {
	if r.Deleted {
		return nil, fmt.Errorf("a finding can't be deleted")
	}
	v, err := decode[fleet.Finding](r)
	if err == nil && v.ID == "" {
		err = fmt.Errorf("a finding needs an id")
	}
	return []any{
		v.ID, r.Revision, r.At, v.Device, v.RuleID, v.RuleVersion,
		string(v.Mode), string(v.Evidence), string(v.Severity), v.Technique, v.Actor,
		v.WindowStart, v.WindowEnd, v.ReceivedAt, v.StreamSeq, v.Cleared, string(r.JSON),
	}, err
}

// deviceValues leaves out the hash of the enrolment token, which must not
// leave its bucket.
func deviceValues(r *HistoryRow) ([]any, error) {
	v, err := decode[fleet.Device](r)
	if err != nil {
		return nil, err
	}
	text := ""
	if !r.Deleted {
		v.TokenHash = ""
		clean, err := json.Marshal(v)
		if err != nil {
			return nil, fmt.Errorf("encode device: %w", err)
		}
		text = string(clean)
	}
	return append(revision(r, v.ID), string(v.State), v.Cohort, v.Site, text), nil
}
