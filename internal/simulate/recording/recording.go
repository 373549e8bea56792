package recording

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"cordon/internal/fleet"
)

// Limits of one record.
const (
	MaxLine   = 256 << 10 // bytes of a log line
	maxMetric = 128       // bytes of a metric name
	minYear   = 1971
	maxYear   = 2200
)

// Recording is a checked file.
type Recording struct {
	Path    string
	ID      string // device id, from the file's name
	Metric  string // of a series; empty for a log
	Records uint64
	Year    int // of log times without one; 0: unknown
}

// Record is one row or line.
type Record struct {
	At    time.Time // zero for a line without a time
	Value float64   // of a series
	Line  []byte    // of a log, valid until the next record
	Year  int       // of a log line whose time has none
}

// Open reads the whole file and says where it cannot be played: file, line
// and what is wrong. year is that of log times without one.
func Open(path string, year int) (*Recording, error) {
	r := &Recording{Path: path, ID: name(path, fleet.MaxDeviceID), Year: year}
	series, err := isSeries(path)
	if err != nil {
		return nil, err
	}
	if series {
		r.Metric = name(path, maxMetric)
	}
	if err := r.Each(func(Record) error { r.Records++; return nil }); err != nil {
		return nil, err
	}
	if r.Records == 0 {
		return nil, fleet.Errorf(fleet.CodeInvalid, "%s holds no records", path)
	}
	return r, nil
}

// Each calls yield for every record, in the file's order.
func (r *Recording) Each(yield func(Record) error) error {
	f, err := os.Open(r.Path)
	if err != nil {
		return fmt.Errorf("open recording: %w", err)
	}
	defer f.Close()
	in := bufio.NewReaderSize(f, 64<<10)
	skipBOM(in)
	if r.Metric != "" {
		return r.rows(in, yield)
	}
	return r.lines(in, yield)
}

func (r *Recording) bad(line int, format string, args ...any) error {
	return fleet.Errorf(fleet.CodeInvalid, "%s:%d: %s", r.Path, line, fmt.Sprintf(format, args...)).On("file")
}

func (r *Recording) rows(in io.Reader, yield func(Record) error) error {
	rows := csv.NewReader(in)
	rows.ReuseRecord, rows.FieldsPerRecord, rows.TrimLeadingSpace = true, -1, true
	for first := true; ; first = false {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		var syntax *csv.ParseError
		if errors.As(err, &syntax) {
			return r.bad(syntax.Line, "%v", syntax.Err)
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", r.Path, err)
		}
		line, _ := rows.FieldPos(0)
		if first {
			if !isHeader(row) {
				return r.bad(line, "the first row of a series must be \"timestamp,value\"")
			}
			continue
		}
		if len(row) != 2 {
			return r.bad(line, "row has %d fields, want timestamp and value", len(row))
		}
		at, err := parseTime(strings.TrimSpace(row[0]))
		if err != nil {
			return r.bad(line, "%v", err)
		}
		value, err := strconv.ParseFloat(strings.TrimSpace(row[1]), 64)
		if err != nil || math.IsNaN(value) || math.IsInf(value, 0) {
			return r.bad(line, "value %q is not a finite number", row[1])
		}
		if err := yield(Record{At: at, Value: value}); err != nil {
			return err
		}
	}
}

func (r *Recording) lines(in *bufio.Reader, yield func(Record) error) error {
	scan := bufio.NewScanner(in)
	scan.Buffer(make([]byte, 64<<10), MaxLine)
	clock := lineClock{year: r.Year}
	line := 0
	for scan.Scan() {
		line++
		text := bytes.TrimRight(scan.Bytes(), "\r")
		if len(bytes.TrimSpace(text)) == 0 {
			continue
		}
		at, year := clock.read(text)
		if err := yield(Record{At: at, Line: text, Year: year}); err != nil {
			return err
		}
	}
	if errors.Is(scan.Err(), bufio.ErrTooLong) {
		return r.bad(line+1, "line is longer than %d bytes", MaxLine)
	}
	if err := scan.Err(); err != nil {
		return fmt.Errorf("read %s: %w", r.Path, err)
	}
	return nil
}

// lineClock reads the times of log lines. Times without a year go forward: a
// January after a December is the next year's.
type lineClock struct {
	year int
	last time.Month
}

func (c *lineClock) read(line []byte) (at time.Time, year int) {
	text := string(line[:min(len(line), 64)])
	if strings.HasPrefix(text, "<") {
		if i := strings.IndexByte(text, '>'); i > 0 && i <= 4 {
			text = strings.TrimPrefix(text[i+1:], "1 ")
		}
	}
	if len(text) >= len(time.Stamp) {
		if t, err := time.Parse(time.Stamp, text[:len(time.Stamp)]); err == nil {
			if c.year != 0 && c.last == time.December && t.Month() == time.January {
				c.year++
			}
			c.last = t.Month()
			return t.AddDate(c.year-t.Year(), 0, 0), c.year
		}
	}
	first, _, _ := strings.Cut(text, " ")
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05-0700"} {
		if t, err := time.Parse(layout, first); err == nil {
			return t.UTC(), c.year
		}
	}
	return time.Time{}, c.year
}

// parseTime reads RFC 3339, or a date and time of day in UTC.
func parseTime(text string) (time.Time, error) {
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		if at, err = time.Parse(time.DateTime, text); err != nil {
			return time.Time{}, fmt.Errorf("time %q is neither RFC 3339 nor like 2006-01-02 15:04:05", text)
		}
	}
	if y := at.UTC().Year(); y < minYear || y > maxYear {
		return time.Time{}, fmt.Errorf("time %q is outside the years %d to %d", text, minYear, maxYear)
	}
	return at.UTC(), nil
}

// isSeries tells a series from a log by its name or its first row.
func isSeries(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, fmt.Errorf("open recording: %w", err)
	}
	defer f.Close()
	in := bufio.NewReader(f)
	skipBOM(in)
	head, err := in.Peek(256)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("read recording %s: %w", path, err)
	}
	first, _, _ := bytes.Cut(head, []byte("\n"))
	return strings.EqualFold(filepath.Ext(path), ".csv") || isHeader(strings.Split(string(first), ",")), nil
}

func isHeader(row []string) bool {
	return len(row) == 2 &&
		strings.EqualFold(strings.Trim(row[0], "\" \t\r"), "timestamp") &&
		strings.EqualFold(strings.Trim(row[1], "\" \t\r"), "value")
}

func skipBOM(in *bufio.Reader) {
	if head, err := in.Peek(3); err == nil && bytes.Equal(head, []byte("\xef\xbb\xbf")) {
		_, _ = in.Discard(3) // was peeked
	}
}

// name makes a file's base name a device id or metric name.
func name(path string, limit int) string {
	base := filepath.Base(path)
	base = strings.TrimSuffix(base, filepath.Ext(base))
	out := []byte(base)
	for i, c := range out {
		ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-'
		if !ok {
			out[i] = '_'
		}
	}
	if len(out) == 0 {
		return "recording"
	}
	return string(out[:min(len(out), limit)])
}
