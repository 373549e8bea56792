package api

import "net/http"

type (
	overviewOutput struct{ Body Overview }
	systemOutput   struct{ Body System }
	certifyInput   struct{ Body CertificateRequest }
	certifyOutput  struct{ Body Certificate }
)

// CertificateRequest redeems an enrolment token.
type CertificateRequest struct {
	Token      string `json:"token" minLength:"1" maxLength:"256"`
	Device     string `json:"device,omitempty" maxLength:"64" doc:"The id that it wants; only with a fleet token."`
	HardwareID string `json:"hardware_id,omitempty" maxLength:"128" doc:"Such as a serial number; no two devices share one."`
	CSR        string `json:"csr" minLength:"1" maxLength:"16384" doc:"PEM certificate request; only its key is used."`
}

// Certificate is what a device needs to connect.
type Certificate struct {
	Device      string `json:"device"`
	Certificate string `json:"certificate" doc:"PEM"`
	CA          string `json:"ca" doc:"PEM of the authority that signed the broker's certificate."`
	NATS        string `json:"nats" doc:"Address of the NATS listener."`
	MQTT        string `json:"mqtt" doc:"Address of the MQTT listener."`
}

func (a *API) systemRoutes() {
	add(a, route{"get-overview", http.MethodGet, "/overview", "The state of everything in one answer", "overview"}, a.getOverview)
	add(a, route{"get-system", http.MethodGet, "/system", "How Cordon itself is doing", "system"}, a.getSystem)
	add(a, route{"redeem-enrollment", http.MethodPost, "/enrollments", "Turn an enrolment token and a certificate request into a certificate", "devices"}, a.redeemEnrollment)
}
