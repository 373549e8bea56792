package api

import (
	"strconv"

	"cordon/internal/fleet"
)

// Classes and activities of OCSF 1.3 (https://schema.ocsf.io): Detection
// Finding and Incident Finding.
const (
	ocsfVersion          = "1.3.0"
	ocsfCategory         = 2 // Findings
	ocsfDetectionFinding = 2004
	ocsfIncidentFinding  = 2005
	ocsfCreate           = 1
	ocsfUpdate           = 2
	ocsfClose            = 3
)

func ocsfSeverity(s fleet.Severity) int {
	switch s {
	case fleet.Informational:
		return 1
	case fleet.Low:
		return 2
	case fleet.Medium:
		return 3
	case fleet.High:
		return 4
	case fleet.Critical:
		return 5
	}
	return 0
}

func ocsfMetadata(version, uid string) map[string]any {
	return map[string]any{"version": ocsfVersion, "uid": uid, "product": map[string]any{"name": "Cordon", "vendor_name": "Cordon", "version": version}}
}

func ocsfAttacks(techniques ...string) []any {
	attacks := []any{}
	for _, id := range techniques {
		if id != "" {
			attacks = append(attacks, map[string]any{"version": "15.1", "technique": map[string]any{"uid": id}})
		}
	}
	return attacks
}

func ocsfFinding(f fleet.Finding, version string) map[string]any {
	activity, status := ocsfCreate, 1
	if f.Cleared {
		activity, status = ocsfClose, 4
	}
	return map[string]any{
		"class_uid": ocsfDetectionFinding, "class_name": "Detection Finding", "category_uid": ocsfCategory, "category_name": "Findings",
		"activity_id": activity, "type_uid": ocsfDetectionFinding*100 + activity, "status_id": status, "severity_id": ocsfSeverity(f.Severity),
		"time": f.ReceivedAt.UnixMilli(), "start_time": f.WindowStart.UnixMilli(), "end_time": f.WindowEnd.UnixMilli(),
		"message": f.Explanation.Sentence, "metadata": ocsfMetadata(version, f.ID),
		"finding_info": map[string]any{
			"uid": f.ID, "title": f.RuleTitle, "desc": f.Explanation.Sentence, "created_time": f.DetectedAt.UnixMilli(),
			"analytic": map[string]any{"uid": f.RuleID, "name": f.RuleTitle, "version": f.RuleVersion, "type_id": 1},
			"attacks":  ocsfAttacks(f.Technique),
		},
		"resources": []any{map[string]any{"uid": f.Device, "name": f.Device, "type": "device", "group": map[string]any{"name": f.Cohort}}},
		"evidences": []any{map[string]any{"data": f.Explanation}},
	}
}

func ocsfIncident(i fleet.Incident, version string) map[string]any {
	activity, status := ocsfUpdate, 2
	switch i.State {
	case fleet.Open:
		activity, status = ocsfCreate, 1
	case fleet.Resolved:
		activity, status = ocsfClose, 4
	}
	findings := []any{}
	for _, id := range i.FindingIDs {
		findings = append(findings, map[string]any{"uid": id, "product_uid": "cordon"})
	}
	out := map[string]any{
		"class_uid": ocsfIncidentFinding, "class_name": "Incident Finding", "category_uid": ocsfCategory, "category_name": "Findings",
		"activity_id": activity, "type_uid": ocsfIncidentFinding*100 + activity, "status_id": status, "severity_id": ocsfSeverity(i.Severity),
		"time": i.UpdatedAt.UnixMilli(), "start_time": i.OpenedAt.UnixMilli(), "message": i.Title, "desc": i.Title,
		"metadata": ocsfMetadata(version, i.ID), "finding_info_list": findings, "attacks": ocsfAttacks(i.Techniques...),
		"resources": []any{map[string]any{"uid": i.Device, "name": i.Device, "type": "device"}},
	}
	if i.Assignee != "" {
		out["assignee"] = map[string]any{"name": i.Assignee}
	}
	if i.Verdict != "" {
		out["verdict"], out["comment"] = string(i.Verdict), i.Reason
	}
	return out
}

func number(n uint64) string { return strconv.FormatUint(n, 10) }

func decimal(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
