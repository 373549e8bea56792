package replay

import (
	"bufio"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
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
	d := newScorer(settings)
	for {
		row, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return rows, nil
		}
		if err != nil {
			return rows, fmt.Errorf("read row %d: %w", rows+2, err)
		}
		at, value, err := parseRow(row)
		if err != nil {
			return rows, fmt.Errorf("row %d: %w", rows+2, err)
		}
		if _, err := fmt.Fprintf(out, "%s,%s,%.6f\n", row[0], row[1], d.score(at.Unix(), value)); err != nil {
			return rows, err
		}
		rows++
	}
}

// scorer is the live model of one stream and its speaker.
type scorer struct {
	settings baseline.Settings
	model    baseline.Model
	speaker  baseline.Speaker
}

func newScorer(settings baseline.Settings) *scorer { return &scorer{settings: settings} }

// score is in [0, 1]: a tenth of the novelty that is worth saying.
func (d *scorer) score(at int64, value float64) float64 {
	j := d.model.Observe(&d.settings, at, 0, value, true)
	return math.Round(min(1, d.speaker.Speak(j.Novelty)/10)*1e6) / 1e6
}

// Detect scores a labelled series with the production model.
func Detect(settings baseline.Settings) func(Series) []float64 {
	return func(s Series) []float64 {
		d := newScorer(settings)
		out := make([]float64, len(s.At))
		for i := range s.At {
			out[i] = d.score(s.At[i], s.Value[i])
		}
		return out
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
