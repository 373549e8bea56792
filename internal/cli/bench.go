package cli

// BenchCmd measures Cordon on this machine.
type BenchCmd struct {
	Quarantine BenchQuarantineCmd `cmd:"" help:"From the call, and from a reading, to the cut and to its proof, while the rest of the fleet streams."`
	Device     BenchDeviceCmd     `cmd:"" hidden:"" help:"Devices of bench quarantine, started by it."`
	Ingest     BenchIngestCmd     `cmd:"" help:"Readings per second from the broker into ClickHouse, beside what the engines do alone."`
	Chaos      BenchChaosCmd      `cmd:"" help:"Kill, cut and delay everything while devices send, and count what is stored."`
	Alert      BenchAlertCmd      `cmd:"" help:"From a reading to the webhook that tells of it."`
}
