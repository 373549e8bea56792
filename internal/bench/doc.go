// Package bench measures Cordon beside the bare limits of the engines that it
// stands on, and shows under faults that nothing is lost and nothing stored
// twice. cordon bench runs it; the numbers in docs/ingest.md come from it.
//
// Every bench starts what it needs on free ports in a temporary directory and
// removes it. Rates depend on what else the machine does; CPU seconds per
// million readings and the ratio to the limit, measured in the same run, do
// not depend on it much.
package bench
