package identity

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"cordon/internal/fleet"
)

// MaxBulk is the most devices of one bulk enrolment.
const MaxBulk = 2000

// BulkColumns are the columns of a bulk enrolment's CSV, in any order; id must
// be there.
var BulkColumns = []string{
	"id", "cohort", "site", "model", "firmware", "owner", "tags", "time_zone", "historic", "credential", "maker", "gateway", "hardware_id",
}

// Row is a line of a bulk enrolment.
type Row struct {
	Line int // in the file, from 1
	Enrolment
}

// LineFault is what is wrong with a line.
type LineFault struct {
	Line    int    `json:"line"`
	Column  string `json:"column,omitempty"`
	Message string `json:"message"`
}

func (f LineFault) String() string {
	if f.Column != "" {
		return fmt.Sprintf("line %d, %s: %s", f.Line, f.Column, f.Message)
	}
	return fmt.Sprintf("line %d: %s", f.Line, f.Message)
}

// maxFaults is how many faults of a file are told at once.
const maxFaults = 100

// ParseBulk reads a CSV (RFC 4180) with a header line. It tells every fault
// that can be found without asking the registry.
func ParseBulk(in io.Reader) ([]Row, []LineFault) {
	r := csv.NewReader(skipMark(in))
	r.FieldsPerRecord, r.TrimLeadingSpace, r.ReuseRecord = -1, true, true
	head, err := r.Read()
	if errors.Is(err, io.EOF) {
		return nil, []LineFault{{1, "", "the file is empty: it needs a header line such as id,cohort,site,tags"}}
	}
	if err != nil {
		return nil, []LineFault{csvFault(err)}
	}
	columns := make([]string, len(head))
	for i, name := range head {
		name = strings.ToLower(strings.TrimSpace(name))
		if !slices.Contains(BulkColumns, name) || slices.Contains(columns[:i], name) {
			return nil, []LineFault{{1, name, "unknown or repeated column: use " + strings.Join(BulkColumns, ", ")}}
		}
		columns[i] = name
	}
	if !slices.Contains(columns, "id") {
		return nil, []LineFault{{1, "id", "the header has no column id"}}
	}
	var rows []Row
	var faults []LineFault
	lines := map[string]int{}
	for len(faults) < maxFaults {
		record, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, append(faults, csvFault(err))
		}
		line, _ := r.FieldPos(0)
		if len(record) != len(columns) {
			faults = append(faults, LineFault{line, "", fmt.Sprintf("%d fields, the header has %d", len(record), len(columns))})
			continue
		}
		row, fault := parseRow(line, columns, record)
		if fault == nil && lines[row.ID] != 0 {
			fault = &LineFault{line, "id", fmt.Sprintf("%s is on line %d already", row.ID, lines[row.ID])}
		}
		if fault != nil {
			faults = append(faults, *fault)
			continue
		}
		lines[row.ID] = line
		if rows = append(rows, row); len(rows) > MaxBulk {
			return nil, append(faults, LineFault{line, "", fmt.Sprintf("more than %d devices: split the file", MaxBulk)})
		}
	}
	if len(rows) == 0 && len(faults) == 0 {
		faults = append(faults, LineFault{1, "", "the file has a header and no device"})
	}
	return rows, faults
}

// skipMark leaves out the byte order mark that spreadsheets write.
func skipMark(in io.Reader) io.Reader {
	mark := make([]byte, 3)
	n, _ := io.ReadFull(in, mark) //nolint:errcheck // the reader behind meets the same end or error
	if string(mark[:n]) == "\xef\xbb\xbf" {
		return in
	}
	return io.MultiReader(strings.NewReader(string(mark[:n])), in)
}

func csvFault(err error) LineFault {
	var parse *csv.ParseError
	if errors.As(err, &parse) {
		return LineFault{parse.Line, "", parse.Err.Error()}
	}
	return LineFault{1, "", err.Error()}
}

func parseRow(line int, columns, record []string) (Row, *LineFault) {
	row := Row{Line: line}
	for i, name := range columns {
		value := strings.TrimSpace(record[i])
		switch name {
		case "id":
			row.ID = value
		case "cohort":
			row.Cohort = value
		case "site":
			row.Site = value
		case "model":
			row.Model = value
		case "firmware":
			row.Firmware = value
		case "owner":
			row.Owner = value
		case "time_zone":
			row.TimeZone = value
		case "credential":
			row.Credential = fleet.Credential(value)
		case "maker":
			row.Maker = value
		case "gateway":
			row.Gateway = value
		case "hardware_id":
			row.HardwareID = value
		case "tags":
			for tag := range strings.SplitSeq(value, ";") {
				if tag = strings.TrimSpace(tag); tag != "" {
					row.Tags = append(row.Tags, tag)
				}
			}
		case "historic":
			historic, err := strconv.ParseBool(value)
			if value != "" && err != nil {
				return row, &LineFault{line, name, fmt.Sprintf("%q is not true or false", value)}
			}
			row.Historic = historic
		}
	}
	if err := checkEnrolment(row.Enrolment); err != nil {
		return row, faultOf(line, err)
	}
	return row, nil
}

func faultOf(line int, err error) *LineFault {
	fault := &LineFault{Line: line, Message: err.Error()}
	var known *fleet.Error
	if errors.As(err, &known) {
		fault.Column, fault.Message = known.Field, known.Message
	}
	return fault
}

// EnrolledRow is an enrolled line, with what to put on the device.
type EnrolledRow struct {
	Line   int
	Device fleet.Device
	Secret string
}

// EnrollAll enrols every row, or none when one can't be (with dry, none at
// all). A row may name a gateway that stands in the same file. When it breaks
// off half way it returns what it has done: those devices are enrolled.
func (r *Registry) EnrollAll(ctx context.Context, rows []Row, actor string, dry bool) ([]EnrolledRow, []LineFault, error) {
	var faults []LineFault
	ids := map[string]*Row{}
	for i := range rows {
		ids[rows[i].ID] = &rows[i]
	}
	for _, row := range rows {
		if fault, err := r.fits(ctx, row, ids); err != nil {
			return nil, nil, err
		} else if fault != nil && len(faults) < maxFaults {
			faults = append(faults, *fault)
		}
	}
	if len(faults) > 0 || dry {
		return nil, faults, nil
	}
	// Gateways come before their children.
	ordered := slices.Clone(rows)
	slices.SortStableFunc(ordered, func(a, b Row) int { return min(len(a.Gateway), 1) - min(len(b.Gateway), 1) })
	done := make([]EnrolledRow, 0, len(rows))
	for _, row := range ordered {
		row.Actor = actor
		device, secret, err := r.Enroll(ctx, row.Enrolment)
		if fleet.CodeOf(err) != "" {
			faults = append(faults, *faultOf(row.Line, err))
			continue // changed by others since it was checked
		}
		if err != nil {
			return done, faults, fmt.Errorf("line %d, after %d devices: %w", row.Line, len(done), err)
		}
		done = append(done, EnrolledRow{row.Line, device, secret})
	}
	slices.SortFunc(done, func(a, b EnrolledRow) int { return a.Line - b.Line })
	return done, faults, nil
}

// fits checks a row against the registry without changing it.
func (r *Registry) fits(ctx context.Context, row Row, ids map[string]*Row) (*LineFault, error) {
	e := row.Enrolment
	if same := ids[e.Gateway]; same != nil && e.Gateway != "" {
		if same.Gateway != "" || e.Gateway == e.ID {
			return &LineFault{row.Line, "gateway", fmt.Sprintf("%s is itself behind a gateway", e.Gateway)}, nil
		}
		e.Gateway, e.Credential = "", "" // it will be there
	}
	device, err := r.Lookup(ctx, e.ID)
	if fleet.CodeOf(err) == fleet.CodeNotFound {
		err = nil
	}
	if err == nil {
		err = r.checkCredential(ctx, &e)
	}
	if err == nil {
		err = r.admit(&device, e)
	}
	if fleet.CodeOf(err) != "" {
		return faultOf(row.Line, err), nil
	}
	return nil, err
}
