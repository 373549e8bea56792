package store

import (
	"fmt"
	"time"

	"github.com/ClickHouse/ch-go/proto"
)

// kind is the type of a column of the smaller tables.
type kind int

const (
	text     kind = iota // String
	word                 // LowCardinality(String)
	words                // Map(String, String)
	instant              // DateTime64(3, 'UTC')
	number               // UInt64
	number32             // UInt32
	signed               // Int64
	flag                 // UInt8, 0 or 1
)

type column struct {
	name string
	kind kind
}

// table collects rows of a smaller table column by column.
type table struct {
	columns []column
	data    []proto.ColInput
}

func newTable(columns []column) *table {
	t := &table{columns: columns, data: make([]proto.ColInput, len(columns))}
	for i, c := range columns {
		switch c.kind {
		case text:
			t.data[i] = new(proto.ColStr)
		case word:
			t.data[i] = proto.NewLowCardinality(new(proto.ColStr))
		case words:
			t.data[i] = proto.NewMap(new(proto.ColStr), new(proto.ColStr))
		case instant:
			t.data[i] = new(proto.ColDateTime64).WithPrecision(proto.PrecisionMilli).WithLocation(time.UTC)
		case number:
			t.data[i] = new(proto.ColUInt64)
		case number32:
			t.data[i] = new(proto.ColUInt32)
		case signed:
			t.data[i] = new(proto.ColInt64)
		case flag:
			t.data[i] = new(proto.ColUInt8)
		}
	}
	return t
}

// add appends a row: one value per column, of the column's Go type.
func (t *table) add(values ...any) {
	if len(values) != len(t.columns) {
		panic(fmt.Sprintf("store: %d values for %d columns", len(values), len(t.columns)))
	}
	for i, v := range values {
		switch c := t.data[i].(type) {
		case *proto.ColStr:
			c.Append(v.(string))
		case *proto.ColLowCardinality[string]:
			c.Append(v.(string))
		case *proto.ColMap[string, string]:
			c.Append(v.(map[string]string))
		case *proto.ColDateTime64:
			c.Data = append(c.Data, proto.DateTime64(millis(v.(time.Time))))
		case *proto.ColUInt64:
			c.Append(v.(uint64))
		case *proto.ColUInt32:
			c.Append(v.(uint32))
		case *proto.ColInt64:
			c.Append(v.(int64))
		case *proto.ColUInt8:
			var bit uint8
			if v.(bool) {
				bit = 1
			}
			c.Append(bit)
		}
	}
}

func (t *table) input() proto.Input {
	input := make(proto.Input, len(t.columns))
	for i, c := range t.columns {
		input[i] = proto.InputColumn{Name: c.name, Data: t.data[i]}
	}
	return input
}

// millis is t in milliseconds since 1970; the zero time becomes 0.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}
