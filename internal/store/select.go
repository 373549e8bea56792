package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"cordon/internal/fleet"
)

// conditions collects the parts of a WHERE clause and their parameters. Values
// never become part of the SQL text: the server puts them in.
type conditions struct {
	parts  []string
	params clickhouse.Parameters
}

func newConditions() *conditions { return &conditions{params: clickhouse.Parameters{}} }

// add appends a condition that names parameters as {name:Type}.
func (c *conditions) add(part string) { c.parts = append(c.parts, part) }

// text sets a String parameter.
func (c *conditions) text(name, value string) { c.params[name] = escapeParameter(value) }

// number sets an integer parameter.
func (c *conditions) number(name string, value int64) { c.params[name] = strconv.FormatInt(value, 10) }

// equal appends a condition unless the value is empty.
func (c *conditions) equal(column, value string) {
	if value == "" {
		return
	}
	c.add(column + " = {" + column + ":String}")
	c.text(column, value)
}

// since and until bound a DateTime64 column, unless the time is zero.
func (c *conditions) since(column string, t time.Time) {
	if t.IsZero() {
		return
	}
	c.add(column + " >= fromUnixTimestamp64Milli({" + column + "_since:Int64}, 'UTC')")
	c.number(column+"_since", t.UnixMilli())
}

func (c *conditions) until(column string, t time.Time) {
	if t.IsZero() {
		return
	}
	c.add(column + " < fromUnixTimestamp64Milli({" + column + "_until:Int64}, 'UTC')")
	c.number(column+"_until", t.UnixMilli())
}

// after appends that a row comes after a cursor in a list that is newest
// first: by time, then by stream sequence.
func (c *conditions) after(p place, columns ...string) {
	values := make([]string, len(columns))
	for i, column := range columns {
		switch {
		case i == 0:
			values[i] = "fromUnixTimestamp64Milli({after_t:Int64}, 'UTC')"
			c.number("after_t", p.Millis)
		case column == "stream_seq":
			values[i] = "{after_s:UInt64}"
			c.params["after_s"] = strconv.FormatUint(p.StreamSeq, 10)
		case column == "n":
			values[i] = "{after_n:UInt32}"
			c.number("after_n", int64(p.N))
		default:
			values[i] = "{after_i:String}"
			c.text("after_i", p.ID)
		}
	}
	c.add("(" + strings.Join(columns, ", ") + ") < (" + strings.Join(values, ", ") + ")")
}

// where renders the clause.
func (c *conditions) where() string {
	if len(c.parts) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(c.parts, " AND ")
}

// clone copies the conditions, so that a count can go without the cursor.
func (c *conditions) clone() *conditions {
	out := newConditions()
	out.parts = append(out.parts, c.parts...)
	for k, v := range c.params {
		out.params[k] = v
	}
	return out
}

var parameterEscapes = strings.NewReplacer("\\", "\\\\", "\t", "\\t", "\n", "\\n", "\r", "\\r", "\x00", "\\0", "\b", "\\b", "\f", "\\f", "'", "\\'")

// escapeParameter writes a value the way the server reads parameters.
func escapeParameter(s string) string { return parameterEscapes.Replace(s) }

// bounded gives a query its limits and parameters. It takes the cancellation
// away: the driver would close the connection under a running query, which
// ends the embedded engine (an uncaught NetException), and leaving a page of
// the dashboard is enough for that. The server's own time limit ends it.
func bounded(ctx context.Context, params clickhouse.Parameters, limit time.Duration) context.Context {
	settings := clickhouse.Settings{
		"max_execution_time":                 int(limit.Seconds()),
		"max_memory_usage":                   queryMemory,
		"max_bytes_before_external_sort":     queryMemory / 2,
		"max_bytes_before_external_group_by": queryMemory / 2,
		"readonly":                           2,
	}
	return clickhouse.Context(context.WithoutCancel(ctx), clickhouse.WithSettings(settings), clickhouse.WithParameters(params))
}

// each runs a query and calls scan for every row.
func (s *Store) each(ctx context.Context, what, query string, params clickhouse.Parameters, scan func(driver.Rows) error) error {
	if err := ctx.Err(); err != nil {
		return explain(what, err)
	}
	rows, err := s.conn.Query(bounded(ctx, params, queryTimeout), query)
	if err != nil {
		return explain(what, err)
	}
	for rows.Next() {
		if err := scan(rows); err != nil {
			_ = rows.Close() // the first error tells more
			return fmt.Errorf("read %s: %w", what, err)
		}
	}
	if err := rows.Close(); err != nil {
		return explain(what, err)
	}
	if err := rows.Err(); err != nil {
		return explain(what, err)
	}
	return nil
}

// ClickHouse's codes for a query that reached its limits.
const (
	codeTooSlow = 159 // TIMEOUT_EXCEEDED
	codeMemory  = 241 // MEMORY_LIMIT_EXCEEDED
	codeTooMany = 202 // TOO_MANY_SIMULTANEOUS_QUERIES
)

// explain says what a person can do about a query that failed, where there is
// something. The cause stays in the error's chain, for logs.
func explain(what string, err error) error {
	cause := fmt.Errorf("query %s: %w", what, err)
	var exception *clickhouse.Exception
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return cause
	case !errors.As(err, &exception):
		return &fleet.Error{Code: fleet.CodeUnavailable, Message: "ClickHouse does not answer, so " + what + " can't be read now: try again shortly", Err: cause}
	case exception.Code == codeTooSlow, exception.Code == codeMemory:
		return &fleet.Error{Code: fleet.CodeTooMany, Message: "reading " + what + " takes too long or too much memory: ask for less, such as a shorter time", Err: cause}
	case exception.Code == codeTooMany:
		return &fleet.Error{Code: fleet.CodeTooMany, Message: "too many queries are running: try again shortly", Err: cause}
	}
	return cause
}

// count runs a query that returns one UInt64.
func (s *Store) count(ctx context.Context, what, query string, params clickhouse.Parameters) (n uint64, err error) {
	err = s.each(ctx, what, query, params, func(rows driver.Rows) error { return rows.Scan(&n) })
	return n, err
}

// pageSize cuts a wanted number of items down to the limits.
func pageSize(limit int) int {
	if limit <= 0 {
		return DefaultPage
	}
	return min(limit, MaxPage)
}

// pageOf makes a page of rows that were asked for with one too many.
func pageOf[T any](rows []T, limit int, total uint64, key func(T) place) fleet.Page[T] {
	p := fleet.Page[T]{Items: rows, Total: total}
	if len(rows) > limit {
		p.Items = rows[:limit]
		p.Next = key(rows[limit-1]).cursor()
	}
	if p.Items == nil {
		p.Items = []T{}
	}
	return p
}
