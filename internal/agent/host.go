package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/shirou/gopsutil/v4/cpu"
	"github.com/shirou/gopsutil/v4/disk"
	"github.com/shirou/gopsutil/v4/load"
	"github.com/shirou/gopsutil/v4/mem"
	"github.com/shirou/gopsutil/v4/net"
	"github.com/shirou/gopsutil/v4/sensors"

	"cordon/internal/fleet"
)

// Metrics of a host. Rates are per second since the measurement before.
const (
	CPUPercent        = "cpu_percent"
	MemoryPercent     = "memory_percent"
	DiskPercent       = "disk_percent" // of the root file system
	NetBytesOut       = "net_bytes_out_per_second"
	NetBytesIn        = "net_bytes_in_per_second"
	NetPacketsOut     = "net_packets_out_per_second"
	NetPacketsIn      = "net_packets_in_per_second"
	TCPListening      = "tcp_listening_ports"
	UDPListening      = "udp_listening_ports"
	TCPEstablished    = "tcp_established_connections"
	DistinctAddresses = "distinct_destinations" // remote addresses of open TCP connections, loopback apart
	Load1             = "load1"
	CPUTemperature    = "cpu_temp_celsius" // where the host has such a sensor
)

// Host measures the machine that it runs on.
type Host struct {
	last   net.IOCountersStat
	lastAt time.Time
}

// Measure reads every metric once. What the host does not offer is left out
// and named by the error, which is nil when all were read. The first
// measurement has no rates.
func (h *Host) Measure(ctx context.Context, now time.Time) ([]fleet.Reading, error) {
	m := measurement{at: now}
	m.one(ctx, CPUPercent, func(ctx context.Context) (float64, error) {
		all, err := cpu.PercentWithContext(ctx, 0, false)
		if err != nil || len(all) == 0 {
			return 0, errors.Join(err, errMissing(len(all)))
		}
		return all[0], nil
	})
	m.one(ctx, MemoryPercent, func(ctx context.Context) (float64, error) {
		v, err := mem.VirtualMemoryWithContext(ctx)
		if err != nil {
			return 0, err
		}
		return v.UsedPercent, nil
	})
	m.one(ctx, DiskPercent, func(ctx context.Context) (float64, error) {
		v, err := disk.UsageWithContext(ctx, "/")
		if err != nil {
			return 0, err
		}
		return v.UsedPercent, nil
	})
	m.one(ctx, Load1, func(ctx context.Context) (float64, error) {
		v, err := load.AvgWithContext(ctx)
		if err != nil {
			return 0, err
		}
		return v.Load1, nil
	})
	h.traffic(ctx, &m)
	m.connections(ctx)
	m.temperature(ctx)
	return m.readings, errors.Join(m.faults...)
}

type measurement struct {
	at       time.Time
	readings []fleet.Reading
	faults   []error
}

func (m *measurement) add(metric string, value float64) {
	m.readings = append(m.readings, fleet.Reading{ObservedAt: m.at, Metric: metric, Value: value})
}

func (m *measurement) one(ctx context.Context, metric string, read func(context.Context) (float64, error)) {
	v, err := read(ctx)
	if err != nil {
		m.faults = append(m.faults, fmt.Errorf("measure %s: %w", metric, err))
		return
	}
	m.add(metric, v)
}

func errMissing(n int) error {
	if n == 0 {
		return errors.New("the host gave no value")
	}
	return nil
}

// traffic turns the interfaces' counters into rates; loopback is left out. A
// counter that went back (an interface vanished) gives no rate.
func (h *Host) traffic(ctx context.Context, m *measurement) {
	interfaces, err := net.IOCountersWithContext(ctx, true)
	if err != nil {
		m.faults = append(m.faults, fmt.Errorf("measure network: %w", err))
		return
	}
	var sum net.IOCountersStat
	for _, i := range interfaces {
		if i.Name == "lo" || strings.HasPrefix(i.Name, "lo0") {
			continue
		}
		sum.BytesSent += i.BytesSent
		sum.BytesRecv += i.BytesRecv
		sum.PacketsSent += i.PacketsSent
		sum.PacketsRecv += i.PacketsRecv
	}
	seconds := m.at.Sub(h.lastAt).Seconds()
	first := h.lastAt.IsZero()
	last := h.last
	h.last, h.lastAt = sum, m.at
	if first || seconds <= 0 {
		return
	}
	for _, rate := range []struct {
		metric   string
		now, old uint64
	}{
		{NetBytesOut, sum.BytesSent, last.BytesSent},
		{NetBytesIn, sum.BytesRecv, last.BytesRecv},
		{NetPacketsOut, sum.PacketsSent, last.PacketsSent},
		{NetPacketsIn, sum.PacketsRecv, last.PacketsRecv},
	} {
		if rate.now >= rate.old {
			m.add(rate.metric, float64(rate.now-rate.old)/seconds)
		}
	}
}

// Socket types as gopsutil gives them.
const (
	streamSocket   = 1
	datagramSocket = 2
)

func (m *measurement) connections(ctx context.Context) {
	all, err := net.ConnectionsWithContext(ctx, "inet")
	if err != nil {
		m.faults = append(m.faults, fmt.Errorf("measure connections: %w", err))
		return
	}
	tcp, udp := map[uint32]bool{}, map[uint32]bool{}
	remote := map[string]bool{}
	established := 0
	for _, c := range all {
		switch {
		case c.Type == streamSocket && c.Status == "LISTEN":
			tcp[c.Laddr.Port] = true
		case c.Type == datagramSocket && c.Raddr.Port == 0 && c.Laddr.Port != 0:
			udp[c.Laddr.Port] = true
		case c.Type == streamSocket && (c.Status == "ESTABLISHED" || c.Status == "SYN_SENT"):
			if c.Status == "ESTABLISHED" {
				established++
			}
			if ip, err := netip.ParseAddr(c.Raddr.IP); err == nil && !ip.Unmap().IsLoopback() {
				remote[ip.Unmap().String()] = true
			}
		}
	}
	m.add(TCPListening, float64(len(tcp)))
	m.add(UDPListening, float64(len(udp)))
	m.add(TCPEstablished, float64(established))
	m.add(DistinctAddresses, float64(len(remote)))
}

// temperature is that of the hottest processor sensor. Having none is usual
// (virtual machines) and no fault.
func (m *measurement) temperature(ctx context.Context) {
	all, err := sensors.TemperaturesWithContext(ctx)
	if err != nil && len(all) == 0 {
		return
	}
	hottest := 0.0
	for _, s := range all {
		key := strings.ToLower(s.SensorKey)
		for _, part := range []string{"coretemp", "k10temp", "cpu", "soc", "pkg", "zenpower"} {
			if strings.Contains(key, part) && s.Temperature < 150 {
				hottest = max(hottest, s.Temperature)
			}
		}
	}
	if hottest > 0 {
		m.add(CPUTemperature, hottest)
	}
}
