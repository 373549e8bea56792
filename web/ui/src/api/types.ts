// Short names of the API's generated schemas. Nothing here is written by hand
// that the OpenAPI document says.
import type { Schemas } from "./client";

export type Incident = Schemas["Incident"];
export type Finding = Schemas["Finding"];
export type Explanation = Schemas["Explanation"];
export type Quarantine = Schemas["Quarantine"];
export type Rule = Schemas["Rule"];
export type Device = Schemas["Device"];
export type DeviceSummary = Schemas["DeviceSummary"];
export type DeviceDetail = Schemas["DeviceDetail"];
export type BaselineState = Schemas["BaselineState"];
export type Connection = Schemas["Connection"];
export type AuditLine = Schemas["AuditLine"];
export type AuditEvent = Schemas["AuditEvent"];
export type Series = Schemas["Series"];
export type MetricLast = Schemas["MetricLast"];
export type Overview = Schemas["Overview"];
export type Cell = Schemas["Cell"];
export type IncidentsInHour = Schemas["IncidentsInHour"];
export type Delivery = Schemas["Delivery"];
export type Receiver = Schemas["Receiver"];
export type DeadLetter = Schemas["DeadLetter"];
export type StageStatus = Schemas["StageStatus"];
export type System = Schemas["System"];
export type Session = Schemas["Session"];
export type Operator = Schemas["Operator"];
export type Enrolled = Schemas["Enrolled"];
export type EnrollRequest = Schemas["EnrollRequest"];
export type StatusEvent = Schemas["StatusEvent"];
export type TimelineEntry = Schemas["TimelineEntry"];
export type Level = Quarantine["level"];
export type Mode = Rule["mode"];
export type Role = Schemas["Person"]["role"];
export type Verdict = Schemas["ResolveRequest"]["verdict"];
