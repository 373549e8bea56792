package replay

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"cordon/detect/joint"
)

// rowTimes are the forms of "date time" in row files.
var rowTimes = []string{"2-Jan-06 15:04:05", "2006-01-02 15:04:05", "02/01/2006 15:04:05"}

// table is a file of rows with date, time and value columns, in any order.
type table struct {
	names  []string
	at     []time.Time
	values [][]float64
}

// Rows judges every row of a table (date,time,value,…) by the joint behaviour
// of its columns and writes prediction,anomaly_score in the file's order. It
// sees rows in time order and no labels; the first learn rows in time order
// teach.
func Rows(path, out string, learn int, settings joint.Settings) (rows, flagged int, err error) {
	rows, err = throughFiles(path, out, func(in io.Reader, to io.Writer) (int, error) {
		t, err := readTable(in)
		if err != nil {
			return 0, err
		}
		if learn < 10 || learn >= len(t.at) {
			return 0, fmt.Errorf("learn %d rows of %d: want at least 10 and fewer than there are", learn, len(t.at))
		}
		settings.Learn = learn
		scores := t.judge(settings)
		if _, err := io.WriteString(to, "prediction,anomaly_score\n"); err != nil {
			return 0, fmt.Errorf("write header: %w", err)
		}
		for _, s := range scores {
			strange := 0
			if s >= 1 {
				strange = 1
				flagged++
			}
			if _, err := fmt.Fprintf(to, "%d,%.4f\n", strange, s); err != nil {
				return 0, fmt.Errorf("write row: %w", err)
			}
		}
		return len(scores), nil
	})
	return rows, flagged, err
}

// judge returns scores in the file's order.
func (t *table) judge(settings joint.Settings) []float64 {
	order := make([]int, len(t.at))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(t.at[a].UnixNano(), t.at[b].UnixNano()) })
	model := joint.New(t.names)
	scores := make([]float64, len(order))
	for _, i := range order {
		scores[i] = model.Observe(&settings, t.values[i], true).Score
	}
	return scores
}

func readTable(in io.Reader) (*table, error) {
	buffered := bufio.NewReader(in)
	if mark, err := buffered.Peek(3); err == nil && bytes.Equal(mark, []byte("\xef\xbb\xbf")) {
		_, _ = buffered.Discard(len(mark))
	}
	reader := csv.NewReader(buffered)
	reader.ReuseRecord = true
	header, err := reader.Read()
	if err != nil {
		return nil, fmt.Errorf("read header: %w", err)
	}
	t := &table{}
	date, clock := -1, -1
	var columns []int
	for i, name := range header {
		switch name = strings.TrimSpace(name); {
		case name == "date":
			date = i
		case name == "time":
			clock = i
		case !slices.Contains(labels, name):
			columns = append(columns, i)
			t.names = append(t.names, strings.Clone(name))
		}
	}
	if date < 0 || clock < 0 || len(columns) == 0 {
		return nil, errors.New("header must name date, time and a value")
	}
	for {
		row, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return t, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read row %d: %w", len(t.at)+2, err)
		}
		at, err := parseRowTime(strings.TrimSpace(row[date]) + " " + strings.TrimSpace(row[clock]))
		if err != nil {
			return nil, fmt.Errorf("row %d: %w", len(t.at)+2, err)
		}
		values := make([]float64, len(columns))
		for k, i := range columns {
			if values[k], err = number(row[i]); err != nil {
				return nil, fmt.Errorf("row %d, column %s: %w", len(t.at)+2, t.names[k], err)
			}
		}
		t.at = append(t.at, at)
		t.values = append(t.values, values)
	}
}

// number reads a number or a truth value.
func number(text string) (float64, error) {
	switch text = strings.ToLower(strings.TrimSpace(text)); text {
	case "true", "on", "open":
		return 1, nil
	case "false", "off", "closed":
		return 0, nil
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is no number", text)
	}
	return v, nil
}

func parseRowTime(text string) (time.Time, error) {
	for _, layout := range rowTimes {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("time %q has no known form such as 25-Apr-19 8:59:02", text)
}
