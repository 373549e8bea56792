package simulate

import "cordon/internal/agent"

// signal is one metric of a model.
type signal struct {
	metric string
	base   float64 // level of an average device
	daily  float64 // share of the level that follows the rhythm
	noise  float64 // standard deviation, as a share of the level
	spread float64 // how far devices differ, as a share of the level
	rhythm rhythm
	whole  bool    // counts: rounded
	most   float64 // upper bound; 0: none
}

// profile is a cohort: what its devices measure and what they are called.
type profile struct {
	cohort  string
	models  []string
	release []string // firmware
	share   int      // of twenty devices
	signals []signal
}

// Metrics that only some cohorts have.
const (
	videoFrames = "video_frames_per_second"
	power       = "power_watts"
	voltage     = "voltage_volts"
	children    = "children_connected"
	cycleTime   = "cycle_time_ms"
)

func rate(metric string, base, daily float64, r rhythm) signal {
	return signal{metric: metric, base: base, daily: daily, noise: 0.07, spread: 0.15, rhythm: r}
}

func percent(metric string, base, daily, noise float64, r rhythm) signal {
	return signal{metric: metric, base: base, daily: daily, noise: noise, spread: 0.08, rhythm: r, most: 100}
}

func count(metric string, base, daily, noise float64, r rhythm) signal {
	return signal{metric: metric, base: base, daily: daily, noise: noise, rhythm: r, whole: true}
}

func temperature(base, daily float64, r rhythm) signal {
	return signal{metric: agent.CPUTemperature, base: base, daily: daily, noise: 0.012, spread: 0.04, rhythm: r}
}

var profiles = []profile{
	{
		cohort: "camera", models: []string{"Irisal C20", "Irisal C35"}, release: []string{"5.2.1", "5.2.3"}, share: 8,
		signals: []signal{
			percent(agent.CPUPercent, 34, 0.22, 0.06, day), percent(agent.MemoryPercent, 47, 0.02, 0.015, day),
			percent(agent.DiskPercent, 61, 0, 0.003, flat),
			rate(agent.NetBytesOut, 410e3, 0.35, day), rate(agent.NetBytesIn, 8.5e3, 0.2, day),
			rate(agent.NetPacketsOut, 370, 0.33, day), rate(agent.NetPacketsIn, 150, 0.3, day),
			count(agent.TCPListening, 3, 0, 0, flat), count(agent.UDPListening, 2, 0, 0, flat),
			count(agent.TCPEstablished, 8, 0.1, 0.18, day), count(agent.DistinctAddresses, 6, 0.1, 0.2, day),
			rate(agent.Load1, 0.9, 0.22, day), temperature(48, 0.09, day),
			{metric: videoFrames, base: 25, noise: 0.012},
		},
	},
	{
		cohort: "meter", models: []string{"Volta M1"}, release: []string{"2.4.0", "2.4.2"}, share: 6,
		signals: []signal{
			percent(agent.CPUPercent, 8, 0.15, 0.08, evening), percent(agent.MemoryPercent, 31, 0, 0.01, flat),
			percent(agent.DiskPercent, 18, 0, 0.003, flat),
			rate(agent.NetBytesOut, 900, 0.1, evening), rate(agent.NetBytesIn, 420, 0.1, evening),
			rate(agent.NetPacketsOut, 4.2, 0.1, evening), rate(agent.NetPacketsIn, 3.6, 0.1, evening),
			count(agent.TCPListening, 1, 0, 0, flat), count(agent.UDPListening, 0, 0, 0, flat),
			count(agent.TCPEstablished, 4, 0, 0.25, flat), count(agent.DistinctAddresses, 4, 0, 0.25, flat),
			rate(agent.Load1, 0.12, 0.1, evening), temperature(31, 0.1, day),
			{metric: power, base: 640, daily: 0.35, noise: 0.05, spread: 0.25, rhythm: evening},
			{metric: voltage, base: 230, daily: 0.006, noise: 0.004, spread: 0.003, rhythm: evening},
		},
	},
	{
		cohort: "gateway", models: []string{"Portal G4", "Portal G4 LTE"}, release: []string{"11.0.7"}, share: 3,
		signals: []signal{
			percent(agent.CPUPercent, 27, 0.3, 0.07, office), percent(agent.MemoryPercent, 55, 0.03, 0.015, office),
			percent(agent.DiskPercent, 34, 0, 0.003, flat),
			rate(agent.NetBytesOut, 160e3, 0.4, office), rate(agent.NetBytesIn, 210e3, 0.4, office),
			rate(agent.NetPacketsOut, 260, 0.4, office), rate(agent.NetPacketsIn, 310, 0.4, office),
			count(agent.TCPListening, 5, 0, 0, flat), count(agent.UDPListening, 4, 0, 0, flat),
			count(agent.TCPEstablished, 34, 0.25, 0.1, office), count(agent.DistinctAddresses, 22, 0.2, 0.12, office),
			rate(agent.Load1, 0.7, 0.3, office), temperature(44, 0.08, office),
			count(children, 32, 0, 0.04, flat),
		},
	},
	{
		cohort: "plc", models: []string{"Takt P7", "Takt P9"}, release: []string{"3.1.4", "3.1.5"}, share: 3,
		signals: []signal{
			percent(agent.CPUPercent, 41, 0.28, 0.05, shifts), percent(agent.MemoryPercent, 40, 0.01, 0.01, shifts),
			percent(agent.DiskPercent, 25, 0, 0.003, flat),
			rate(agent.NetBytesOut, 5.2e3, 0.3, shifts), rate(agent.NetBytesIn, 6.1e3, 0.3, shifts),
			rate(agent.NetPacketsOut, 22, 0.3, shifts), rate(agent.NetPacketsIn, 24, 0.3, shifts),
			count(agent.TCPListening, 2, 0, 0, flat), count(agent.UDPListening, 1, 0, 0, flat),
			count(agent.TCPEstablished, 6, 0.1, 0.18, shifts), count(agent.DistinctAddresses, 5, 0.1, 0.2, shifts),
			rate(agent.Load1, 0.5, 0.28, shifts), temperature(46, 0.1, shifts),
			{metric: cycleTime, base: 12, daily: 0.05, noise: 0.02, spread: 0.05, rhythm: shifts},
		},
	},
}

// site is a place with its time zone.
type site struct{ name, zone string }

var sites = []site{
	{"Lyon", "Europe/Paris"},
	{"Rotterdam", "Europe/Amsterdam"},
	{"Gdansk", "Europe/Warsaw"},
	{"Turin", "Europe/Rome"},
	{"Bilbao", "Europe/Madrid"},
}
