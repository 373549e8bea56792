package app

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"cordon/internal/fleet"
)

// subjectStatus is asked by the web role; every other process answers with
// the states of its stages.
const subjectStatus = "cordon.status"

// gatherFor is how long answers of other processes are waited for.
const gatherFor = 200 * time.Millisecond

// stage adds a stage to what this process tells about itself.
func (p *platform) stage(status func() fleet.StageStatus) { p.statuses = append(p.statuses, status) }

// local is the state of this process's stages.
func (p *platform) local() []fleet.StageStatus {
	out := make([]fleet.StageStatus, 0, len(p.statuses))
	for _, status := range p.statuses {
		out = append(out, status())
	}
	return out
}

// stages is the state of every stage, wherever it runs.
func (p *platform) stages(ctx context.Context) []fleet.StageStatus {
	out := p.local()
	if !p.alone {
		out = append(out, p.elsewhere(ctx)...)
	}
	return out
}

func (p *platform) elsewhere(ctx context.Context) []fleet.StageStatus {
	ctx, cancel := context.WithTimeout(ctx, gatherFor)
	defer cancel()
	inbox := p.bus.Cordon.NewInbox()
	answers, err := p.bus.Cordon.SubscribeSync(inbox)
	if err != nil {
		p.log.Warn("stages elsewhere cannot be asked", "error", err)
		return nil
	}
	defer func() { _ = answers.Unsubscribe() }()
	if err := p.bus.Cordon.PublishRequest(subjectStatus, inbox, []byte(p.process)); err != nil {
		p.log.Warn("stages elsewhere cannot be asked", "error", err)
		return nil
	}
	var out []fleet.StageStatus
	for {
		msg, err := answers.NextMsgWithContext(ctx)
		if err != nil {
			return out
		}
		var states []fleet.StageStatus
		if err := json.Unmarshal(msg.Data, &states); err == nil {
			out = append(out, states...)
		}
	}
}

// answerStatus answers other processes.
func (p *platform) answerStatus(life *lifecycle) error {
	p.process = nats.NewInbox()
	sub, err := p.bus.Cordon.Subscribe(subjectStatus, func(m *nats.Msg) {
		if string(m.Data) == p.process {
			return // our own question
		}
		raw, err := json.Marshal(p.local())
		if err == nil {
			err = m.Respond(raw)
		}
		if err != nil {
			p.log.Warn("state is not told", "error", err)
		}
	})
	if err != nil {
		return fmt.Errorf("answer for status: %w", err)
	}
	life.onStop(func() { _ = sub.Unsubscribe() })
	return nil
}
