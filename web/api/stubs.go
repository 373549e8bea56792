package api

import (
	"context"

	"github.com/danielgtaylor/huma/v2/sse"
)

func (a *API) listDevices(context.Context, *listDevicesInput) (*listDevicesOutput, error) { return nil, nil }
func (a *API) deviceFacets(context.Context, *noInput) (*facetsOutput, error) { return nil, nil }
func (a *API) enrollDevice(context.Context, *enrollInput) (*enrollOutput, error) { return nil, nil }
func (a *API) getDevice(context.Context, *deviceInput) (*deviceOutput, error) { return nil, nil }
func (a *API) renewToken(context.Context, *deviceInput) (*enrollOutput, error) { return nil, nil }
func (a *API) revokeDevice(context.Context, *deviceReasonInput) (*deviceEntryOutput, error) { return nil, nil }
func (a *API) retireDevice(context.Context, *deviceReasonInput) (*deviceEntryOutput, error) { return nil, nil }
func (a *API) listMetrics(context.Context, *deviceInput) (*metricsOutput, error) { return nil, nil }
func (a *API) getSeries(context.Context, *seriesInput) (*seriesOutput, error) { return nil, nil }
func (a *API) listAudit(context.Context, *auditInput) (*auditOutput, error) { return nil, nil }
func (a *API) quarantineDevice(context.Context, *quarantineInput) (*quarantineOutput, error) { return nil, nil }
func (a *API) releaseDevice(context.Context, *deviceReasonInput) (*quarantineOutput, error) { return nil, nil }
func (a *API) listQuarantines(context.Context, *listQuarantinesInput) (*listQuarantinesOutput, error) { return nil, nil }
func (a *API) listIncidents(context.Context, *listIncidentsInput) (*listIncidentsOutput, error) { return nil, nil }
func (a *API) getIncident(context.Context, *incidentInput) (*incidentOutput, error) { return nil, nil }
func (a *API) incidentFindings(context.Context, *incidentFindingsInput) (*findingsOutput, error) { return nil, nil }
func (a *API) acknowledgeIncident(context.Context, *incidentInput) (*incidentOutput, error) { return nil, nil }
func (a *API) assignIncident(context.Context, *assignInput) (*incidentOutput, error) { return nil, nil }
func (a *API) commentIncident(context.Context, *commentInput) (*incidentOutput, error) { return nil, nil }
func (a *API) resolveIncident(context.Context, *resolveInput) (*incidentOutput, error) { return nil, nil }
func (a *API) reopenIncident(context.Context, *incidentInput) (*incidentOutput, error) { return nil, nil }
func (a *API) listFindings(context.Context, *listFindingsInput) (*findingsOutput, error) { return nil, nil }
func (a *API) listDeadLetters(context.Context, *listDeadLettersInput) (*listDeadLettersOutput, error) { return nil, nil }
func (a *API) listDeliveries(context.Context, *listDeliveriesInput) (*listDeliveriesOutput, error) { return nil, nil }
func (a *API) listRules(context.Context, *noInput) (*rulesOutput, error) { return nil, nil }
func (a *API) getRule(context.Context, *ruleInput) (*ruleOutput, error) { return nil, nil }
func (a *API) setRuleMode(context.Context, *modeInput) (*ruleOutput, error) { return nil, nil }
func (a *API) signIn(context.Context, *signInInput) (*sessionOutput, error) { return nil, nil }
func (a *API) getSession(context.Context, *noInput) (*currentSessionOutput, error) { return nil, nil }
func (a *API) signOut(context.Context, *noInput) (*signOutOutput, error) { return nil, nil }
func (a *API) changePassword(context.Context, *passwordInput) (*sessionOutput, error) { return nil, nil }
func (a *API) listOperators(context.Context, *noInput) (*operatorsOutput, error) { return nil, nil }
func (a *API) addOperator(context.Context, *addOperatorInput) (*addOperatorOutput, error) { return nil, nil }
func (a *API) listTokens(context.Context, *noInput) (*tokensOutput, error) { return nil, nil }
func (a *API) createToken(context.Context, *createTokenInput) (*createTokenOutput, error) { return nil, nil }
func (a *API) revokeToken(context.Context, *revokeTokenInput) (*emptyOutput, error) { return nil, nil }
func (a *API) getOverview(context.Context, *noInput) (*overviewOutput, error) { return nil, nil }
func (a *API) getSystem(context.Context, *noInput) (*systemOutput, error) { return nil, nil }
func (a *API) redeemEnrollment(context.Context, *certifyInput) (*certifyOutput, error) { return nil, nil }
func (a *API) streamEvents(context.Context, *eventsInput, sse.Sender) {}
