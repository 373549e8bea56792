package replay

import (
	"cmp"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Series is a labelled series of the Numenta Anomaly Benchmark.
type Series struct {
	Name    string
	At      []int64 // Unix seconds
	Value   []float64
	Windows [][2]int // first and last row of each anomaly
}

// LoadSeries reads every series that a file of windows names,
// {"category/file.csv": [[start, end], …]}, from below a directory.
func LoadSeries(data, windows string) ([]Series, error) {
	raw, err := os.ReadFile(windows)
	if err != nil {
		return nil, fmt.Errorf("read windows: %w", err)
	}
	var labels map[string][][2]string
	if err := json.Unmarshal(raw, &labels); err != nil {
		return nil, fmt.Errorf("read windows %s: %w", windows, err)
	}
	var all []Series
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		s, err := loadSeries(filepath.Join(data, name), labels[name])
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		s.Name = name
		all = append(all, s)
	}
	return all, nil
}

func loadSeries(path string, windows [][2]string) (Series, error) {
	var s Series
	in, err := os.Open(path)
	if err != nil {
		return s, fmt.Errorf("open series: %w", err)
	}
	defer in.Close()
	reader := csv.NewReader(in)
	reader.ReuseRecord = true
	if _, err := reader.Read(); err != nil {
		return s, fmt.Errorf("read header: %w", err)
	}
	first := map[int64]int{}
	for {
		row, err := reader.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return s, fmt.Errorf("read row: %w", err)
		}
		at, value, err := parseRow(row)
		if err != nil {
			return s, fmt.Errorf("row %d: %w", len(s.At)+2, err)
		}
		if _, ok := first[at.Unix()]; !ok {
			first[at.Unix()] = len(s.At)
		}
		s.At = append(s.At, at.Unix())
		s.Value = append(s.Value, value)
	}
	for _, w := range windows {
		var rows [2]int
		for i, text := range w {
			at, err := parseTime(strings.TrimSuffix(text, ".000000"))
			if err != nil {
				return s, fmt.Errorf("window: %w", err)
			}
			row, ok := first[at.Unix()]
			if !ok {
				return s, fmt.Errorf("window %s .. %s is not on its timestamps", w[0], w[1])
			}
			rows[i] = row
		}
		s.Windows = append(s.Windows, rows)
	}
	slices.SortFunc(s.Windows, func(a, b [2]int) int { return cmp.Compare(a[0], b[0]) })
	return s, nil
}

// Profile is what the benchmark pays for detections, false alarms and misses.
type Profile struct {
	Name  string
	Hit   float64
	False float64
	Miss  float64
}

// Profiles are the benchmark's own.
func Profiles() []Profile {
	return []Profile{
		{Name: "standard", Hit: 1, False: 0.11, Miss: 1},
		{Name: "reward_low_FP_rate", Hit: 1, False: 0.22, Miss: 1},
		{Name: "reward_low_FN_rate", Hit: 1, False: 0.11, Miss: 2},
	}
}

// judgedRow is a row that some threshold may flag.
type judgedRow struct {
	score  float64
	window int // -1 outside of windows
	value  float64
}

// judged is what a detector's scores of one series are worth.
type judged struct {
	rows     []judgedRow // with a score above 0, highest first
	windows  int         // all
	scorable int         // with a row after the probation
}

func sigmoid(y float64) float64 {
	if y > 3 {
		return -1
	}
	return 2/(1+math.Exp(5*y)) - 1
}

// judgeSeries values rows by the benchmark's rules (Lavin & Ahmad 2015): a
// window pays by how early its first flagged row is, a flagged row outside
// costs by how far behind the last window it is; the first 15 %, at most 750
// rows, are not scored.
func judgeSeries(s *Series, scores []float64) judged {
	n := len(s.At)
	probation := min(int(0.15*float64(n)), 750)
	out := judged{windows: len(s.Windows)}
	top := sigmoid(-1)
	next, last := 0, -1
	for _, w := range s.Windows {
		if w[1] >= probation {
			out.scorable++
		}
	}
	for i := range n {
		for next < len(s.Windows) && s.Windows[next][1] < i {
			last = next
			next++
		}
		if i < probation || scores[i] <= 0 {
			continue
		}
		row := judgedRow{score: scores[i], window: -1, value: -1}
		switch {
		case next < len(s.Windows) && s.Windows[next][0] <= i:
			w := s.Windows[next]
			row.window = next
			row.value = sigmoid(-float64(w[1]-i+1)/float64(w[1]-w[0]+1)) / top
		case last >= 0:
			w := s.Windows[last]
			row.value = sigmoid(float64(i-w[1]) / float64(max(w[1]-w[0], 1)))
		}
		out.rows = append(out.rows, row)
	}
	slices.SortStableFunc(out.rows, func(a, b judgedRow) int { return cmp.Compare(b.score, a.score) })
	return out
}

// Point is what all series together are worth at a threshold.
type Point struct {
	Threshold   float64
	hits, wrong float64
	Found       int
	FalseRows   int
}

// sweep returns the worth at every threshold, from nothing flagged downwards.
func sweep(all []judged) (points []Point, windows, scorable int) {
	type owned struct {
		judgedRow
		series int
	}
	var rows []owned
	for i := range all {
		windows += all[i].windows
		scorable += all[i].scorable
		for _, r := range all[i].rows {
			rows = append(rows, owned{r, i})
		}
	}
	slices.SortStableFunc(rows, func(a, b owned) int { return cmp.Compare(b.score, a.score) })
	best := map[[2]int]float64{}
	p := Point{Threshold: math.Inf(1)}
	for _, r := range rows {
		if r.score != p.Threshold {
			points = append(points, p)
			p.Threshold = r.score
		}
		key := [2]int{r.series, r.window}
		switch old, seen := best[key]; {
		case r.window < 0:
			p.wrong += r.value
			p.FalseRows++
		case !seen || r.value > old:
			p.hits += r.value - old
			best[key] = r.value
			p.Found = len(best)
		}
	}
	return append(points, p), windows, scorable
}

// score of a point: 100 is perfect, 0 says nothing.
func (p *Profile) score(at Point, windows, scorable int) float64 {
	raw := p.Hit*at.hits + p.False*at.wrong - p.Miss*float64(scorable-at.Found)
	null := -p.Miss * float64(scorable)
	perfect := p.Hit * float64(windows)
	if perfect <= null {
		return 0
	}
	return 100 * (raw - null) / (perfect - null)
}

// at is the point of a sweep that a threshold reaches.
func at(points []Point, threshold float64) Point {
	i, _ := slices.BinarySearchFunc(points, threshold, func(p Point, t float64) int {
		if p.Threshold >= t {
			return -1
		}
		return 1
	})
	return points[max(i-1, 0)]
}

// parseRow reads timestamp,value.
func parseRow(row []string) (time.Time, float64, error) {
	if len(row) < 2 {
		return time.Time{}, 0, fmt.Errorf("has %d columns, want timestamp,value", len(row))
	}
	at, err := parseTime(row[0])
	if err != nil {
		return time.Time{}, 0, err
	}
	v, err := strconv.ParseFloat(strings.TrimSpace(row[1]), 64)
	if err != nil {
		return time.Time{}, 0, fmt.Errorf("value %q is no number", row[1])
	}
	return at, v, nil
}
