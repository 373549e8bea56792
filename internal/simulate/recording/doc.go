// Package recording plays recorded files as devices: a series
// (timestamp,value) becomes readings, an authentication log becomes audit
// events, one record per row or line.
//
// A file is read and checked as a whole before anything is sent, so a bad row
// is refused with file and line and nothing of the file is half stored. Blank
// lines are no records.
package recording
