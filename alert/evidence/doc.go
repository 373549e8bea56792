// Package evidence seals what an incident stood on when it was opened, so that
// it can be shown later that nothing was changed. When an incident of severity
// high or critical opens or becomes so, and whenever somebody asks, it gathers
// the incident with its timeline, the findings, readings and audit events
// around them, the rules and baselines as they were, and who was connected
// from where, and writes one ZIP archive.
//
// The archive's manifest lists every member with its SHA-256, what could not
// be gathered, and the hash of the manifest before it: archives form a chain,
// so that one that is taken away leaves a gap. The manifest is signed with
// Ed25519 by the key in the data directory. Verify checks all of that with
// nothing but the file (and, to know whose key it is, the public key).
//
// Archives live in the object store "evidence", out of reach of the retention
// of telemetry. Forget removes those of a device that is erased and leaves
// their manifests, so that the chain still holds.
//
// Input: INCIDENTS on the durable consumer "evidence". Guarantee: one archive
// for each opening, however often the change comes (its name holds the
// change's id).
package evidence
