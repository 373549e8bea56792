// Package wire is the Protobuf schema of what devices send, and Go code for it.
//
// Devices that hold to telemetry.proto may use any Protobuf library. Cordon's
// own encoders are fleet.AppendColumns and fleet.AppendRows; its decoder is
// ingest/codec, which reads the wire format without building these types for
// telemetry. Tests hold the three against each other.
package wire

//go:generate go run github.com/bufbuild/buf/cmd/buf@v1.50.0 generate
