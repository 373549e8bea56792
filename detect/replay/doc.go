// Package replay runs the detector's own engine over records that lie in the
// past: expected bands for charts, backtests of rules, and the output that
// the scorers of public benchmarks read. It is the same code that runs live.
package replay
