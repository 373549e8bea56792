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
	"slices"
	"strconv"
	"strings"

	"cordon/detect/joint"
)

// labels are columns of benchmark files that a detector must not see.
var labels = []string{"anomaly", "changepoint", "label", "type"}

// SKAB judges every file (datetime;metric;…) below data by the joint behaviour
// of its columns and writes, under the same name below out,
// datetime;prediction;anomaly_score. Each file is a device of its own; the
// first rows teach, and a row's verdict uses the rows before it only.
func SKAB(ctx context.Context, data, out string, settings joint.Settings) (files, rows int, err error) {
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
		n, err := throughFiles(path, filepath.Join(out, name), func(in io.Reader, to io.Writer) (int, error) {
			return judgeTable(in, to, settings)
		})
		if err != nil {
			return fmt.Errorf("judge %s: %w", path, err)
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

// throughFiles opens a pipe's files.
func throughFiles(from, to string, pipe func(io.Reader, io.Writer) (int, error)) (rows int, err error) {
	in, err := os.Open(from)
	if err != nil {
		return 0, fmt.Errorf("open series: %w", err)
	}
	defer in.Close()
	if err := os.MkdirAll(filepath.Dir(to), 0o750); err != nil {
		return 0, fmt.Errorf("make directory: %w", err)
	}
	file, err := os.Create(to)
	if err != nil {
		return 0, fmt.Errorf("create output: %w", err)
	}
	w := bufio.NewWriter(file)
	rows, err = pipe(in, w)
	return rows, errors.Join(err, w.Flush(), file.Close())
}

// judgeTable is the pipe from one table to its verdicts.
func judgeTable(in io.Reader, out io.Writer, settings joint.Settings) (rows int, err error) {
	reader := csv.NewReader(in)
	reader.Comma = ';'
	reader.ReuseRecord = true
	header, err := reader.Read()
	if err != nil {
		return 0, fmt.Errorf("read header: %w", err)
	}
	var columns []int
	var names []string
	for i, name := range header {
		if i > 0 && !slices.Contains(labels, name) {
			columns = append(columns, i)
			names = append(names, strings.Clone(name))
		}
	}
	if len(columns) == 0 {
		return 0, errors.New("header names no metric: want datetime;metric;…")
	}
	if _, err := io.WriteString(out, "datetime;prediction;anomaly_score\n"); err != nil {
		return 0, fmt.Errorf("write header: %w", err)
	}
	model := joint.New(names)
	values := make([]float64, len(columns))
	for {
		row, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return rows, nil
		}
		if err != nil {
			return rows, fmt.Errorf("read row %d: %w", rows+2, err)
		}
		for k, i := range columns {
			if values[k], err = strconv.ParseFloat(strings.TrimSpace(row[i]), 64); err != nil {
				return rows, fmt.Errorf("row %d: %s %q is no number", rows+2, names[k], row[i])
			}
		}
		j := model.Observe(&settings, values, true)
		strange := 0
		if j.Score >= 1 {
			strange = 1
		}
		if _, err := fmt.Fprintf(out, "%s;%d;%.4f\n", row[0], strange, j.Score); err != nil {
			return rows, fmt.Errorf("write row: %w", err)
		}
		rows++
	}
}
