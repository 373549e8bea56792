package store

import (
	"context"
	"fmt"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"cordon/internal/fleet"
)

// personal lists the tables that hold rows of a device and which rows those
// are. Incidents about several devices are not a device's own. Deliveries come
// before the incidents that they name.
var personal = []struct{ table, rows string }{
	{"deliveries", "incident IN (SELECT id FROM incidents WHERE device = '%[1]s' AND JSONExtractString(json, 'scope') IN ('', 'device'))"},
	{"telemetry", "device = '%[1]s'"},
	{"telemetry_1m", "device = '%[1]s'"},
	{"telemetry_1h", "device = '%[1]s'"},
	{"telemetry_1d", "device = '%[1]s'"},
	{"device_last", "device = '%[1]s'"},
	{"audit", "device = '%[1]s'"},
	{"dead_letters", "device = '%[1]s'"},
	{"findings", "device = '%[1]s'"},
	{"incidents", "device = '%[1]s' AND JSONExtractString(json, 'scope') IN ('', 'device')"},
	{"quarantines", "device = '%[1]s' OR startsWith(id, '%[1]s.')"},
	{"devices", "id = '%[1]s'"},
}

// DeviceRows counts the rows of a device, by table.
func (s *Store) DeviceRows(ctx context.Context, device string) (map[string]uint64, error) {
	if err := fleet.CheckDeviceID(device); err != nil {
		return nil, fleet.Errorf(fleet.CodeInvalid, "%w", err).On("device")
	}
	counts := map[string]uint64{}
	for _, p := range personal {
		err := s.each(ctx, "rows of "+p.table, "SELECT count() FROM "+p.table+" WHERE "+fmt.Sprintf(p.rows, device), nil, func(rows driver.Rows) error {
			var n uint64
			err := rows.Scan(&n)
			counts[p.table] = n
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return counts, nil
}

// EraseDevice deletes every row of a device and returns once the parts without
// them are on the disk. What it deleted is what DeviceRows counted before.
func (s *Store) EraseDevice(ctx context.Context, device string) error {
	if err := fleet.CheckDeviceID(device); err != nil {
		return fleet.Errorf(fleet.CodeInvalid, "%w", err).On("device")
	}
	ctx = clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"mutations_sync": 2, "allow_nondeterministic_mutations": 1}))
	for _, p := range personal {
		// An id has no character that SQL could take for anything else.
		if err := s.conn.Exec(ctx, "ALTER TABLE "+p.table+" DELETE WHERE "+fmt.Sprintf(p.rows, device)); err != nil {
			return explain("erasure in "+p.table, err)
		}
	}
	return nil
}
