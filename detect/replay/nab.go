package replay

import (
	"bufio"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"cordon/detect/baseline"
)

// csvTimes are the forms of time that series files use.
var csvTimes = []string{"2006-01-02 15:04:05", "2006-01-02 15:04", time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05.000000"}

// NAB scores every series (timestamp,value) below data and writes, under the
// same name below out, timestamp,value,anomaly_score. The score of a row uses
// the rows before it only. It returns how many files and rows it scored.
func NAB(ctx context.Context, data, out string, settings baseline.Settings) (files, rows int, err error) {
	err = filepath.WalkDir(data, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".csv" {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		name, err := filepath.Rel(data, path)
		if err != nil {
			return err
		}
		n, err := scoreFile(path, filepath.Join(out, name), settings)
		if err != nil {
			return fmt.Errorf("score %s: %w", path, err)
		}
		files++
		rows += n
		return nil
	})
	if err == nil && files == 0 {
		err = fmt.Errorf("no .csv file below %s", data)
	}
	return files, rows, err
}

func scoreFile(from, to string, settings baseline.Settings) (rows int, err error) {
	in, err := os.Open(from)
	if err != nil {
		return 0, fmt.Errorf("open series: %w", err)
	}
	defer in.Close()
	if err := os.MkdirAll(filepath.Dir(to), 0o750); err != nil {
		return 0, err
	}
	file, err := os.Create(to)
	if err != nil {
		return 0, err
	}
	w := bufio.NewWriter(file)
	rows, err = scoreSeries(in, w, settings)
	return rows, errors.Join(err, w.Flush(), file.Close())
}

// scoreSeries is the pipe from one series to one scored series.
func scoreSeries(in io.Reader, out io.Writer, settings baseline.Settings) (rows int, err error) {
	reader := csv.NewReader(in)
	reader.ReuseRecord = true
	if _, err := reader.Read(); err != nil {
		return 0, fmt.Errorf("read header: %w", err)
	}
	if _, err := io.WriteString(out, "timestamp,value,anomaly_score\n"); err != nil {
		return 0, err
	}
	var model baseline.Model
	var speaker baseline.Speaker
	for {
		row, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return rows, nil
		}
		if err != nil {
			return rows, fmt.Errorf("read row %d: %w", rows+2, err)
		}
		if len(row) < 2 {
			return rows, fmt.Errorf("row %d has %d columns, want timestamp,value", rows+2, len(row))
		}
		at, err := parseTime(row[0])
		if err != nil {
			return rows, fmt.Errorf("row %d: %w", rows+2, err)
		}
		value, err := strconv.ParseFloat(strings.TrimSpace(row[1]), 64)
		if err != nil {
			return rows, fmt.Errorf("row %d: value %q is no number", rows+2, row[1])
		}
		judged := model.Observe(&settings, at.Unix(), 0, value, true)
		if !judged.Ready { // as live: what is not learned yet is not judged
			judged.Surprise = 0
		}
		score := min(1, speaker.Speak(judged.Surprise)/10)
		if _, err := fmt.Fprintf(out, "%s,%s,%.6f\n", row[0], row[1], score); err != nil {
			return rows, err
		}
		rows++
	}
}

func parseTime(text string) (time.Time, error) {
	for _, layout := range csvTimes {
		if t, err := time.Parse(layout, strings.TrimSpace(text)); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("timestamp %q has no known form such as 2006-01-02 15:04:05", text)
}
