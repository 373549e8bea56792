package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"text/tabwriter"

	"cordon/internal/bench"
	"cordon/internal/store"
)

// BenchIngestCmd measures ingest.
type BenchIngestCmd struct {
	Readings int      `help:"Readings per case; 0 takes what suits the case." default:"0"`
	Case     []string `help:"Cases to run: columnar-raw, columnar-rollups, json-x20-raw, json-single-raw; all by default." placeholder:"NAME"`
	Devices  int      `help:"Devices that send." default:"1000"`
	Profile  string   `help:"Write CPU profiles of Cordon to FILE.CASE." hidden:"" type:"path"`
}

// Run measures and prints.
func (c *BenchIngestCmd) Run(ctx context.Context, g *Globals) error {
	result, err := bench.Ingest(ctx, bench.IngestConfig{
		Engine: store.EngineConfig{}, Readings: c.Readings, Cases: c.Case, Devices: c.Devices, Profile: c.Profile, Log: g.Log, Progress: g.Err,
	})
	if err != nil {
		return err
	}
	if g.JSON {
		return json.NewEncoder(g.Out).Encode(result)
	}
	t := tabwriter.NewWriter(g.Out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "case\treadings/s\tmessages/s\tcpu-s/M\tcordon\tengine\tpeak MiB\tlimit/s\tratio\tby cpu\tbytes/reading\t")
	for _, r := range result.Cases {
		fmt.Fprintf(t, "%s\t%.0f\t%.0f\t%.2f\t%.2f\t%.2f\t%.0f\t%.0f\t%.2f\t%.2f\t%.2f\t\n", r.Name, r.ReadingsPerSecond, r.MessagesPerSecond, r.CPUSecondsPerM,
			r.CPUByProcess["cordon"], r.CPUByProcess["engine"], r.PeakMemoryMiB, r.Limit.ReadingsPerSecond, r.RatioToLimit, r.RatioToLimitOfCPU, r.BytesPerReading)
	}
	return t.Flush()
}
