package rule

import (
	"fmt"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/interpreter"

	"cordon/internal/fleet"
)

// ReadingVars are what a condition on readings sees.
type ReadingVars struct {
	Value    float64
	Previous float64 // the reading before; Value for the first
	Rate     float64 // change per second since then; 0 for the first

	Metric string
	Device string
	Cohort string
	Tags   []string
}

// Reading is a compiled condition on a reading.
type Reading func(*ReadingVars) bool

// Event is a compiled condition on an audit event.
type Event func(*fleet.AuditEvent) bool

// costLimit bounds one evaluation: a condition that costs more is false.
const costLimit = 10_000

type conditionError struct {
	line, column int
	text         string
}

func (e *conditionError) Error() string { return e.text }

var readingEnv = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewEnv(
		cel.Variable("value", cel.DoubleType), cel.Variable("previous", cel.DoubleType), cel.Variable("change", cel.DoubleType),
		cel.Variable("rate", cel.DoubleType), cel.Variable("metric", cel.StringType), cel.Variable("device", cel.StringType),
		cel.Variable("cohort", cel.StringType), cel.Variable("tags", cel.ListType(cel.StringType)),
	)
})

var eventEnv = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewEnv(
		cel.Variable("class", cel.StringType), cel.Variable("activity", cel.StringType), cel.Variable("outcome", cel.StringType),
		cel.Variable("program", cel.StringType), cel.Variable("actor", cel.StringType), cel.Variable("user", cel.StringType),
		cel.Variable("message", cel.StringType), cel.Variable("repeat", cel.IntType),
		cel.Variable("fields", cel.MapType(cel.StringType, cel.StringType)),
		inNetworks, inPorts,
	)
})

func compile(environment func() (*cel.Env, error), text string) (*cel.Ast, cel.Program, error) {
	env, err := environment()
	if err != nil {
		return nil, nil, fmt.Errorf("prepare conditions: %w", err)
	}
	tree, issues := env.Compile(text)
	if issues.Err() != nil {
		first := issues.Errors()[0]
		return nil, nil, &conditionError{first.Location.Line(), first.Location.Column(), first.Message}
	}
	if tree.OutputType() != cel.BoolType {
		return nil, nil, &conditionError{1, 0, fmt.Sprintf("condition gives %s, not true or false", tree.OutputType())}
	}
	program, err := env.Program(tree, cel.CostLimit(costLimit), cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		return nil, nil, fmt.Errorf("plan condition: %w", err)
	}
	return tree, program, nil
}

func compileReading(text string) (Reading, error) {
	tree, program, err := compile(readingEnv, text)
	if err != nil {
		return nil, err
	}
	if quick := fastReading(tree); quick != nil {
		return quick, nil
	}
	return slowReading(program), nil
}

func slowReading(program cel.Program) Reading {
	return func(v *ReadingVars) bool { return truth(program, readingActivation{v}) }
}

func compileEvent(text string) (Event, error) {
	tree, program, err := compile(eventEnv, text)
	if err != nil {
		return nil, err
	}
	if quick := fastEvent(tree); quick != nil {
		return quick, nil
	}
	return slowEvent(program), nil
}

func slowEvent(program cel.Program) Event {
	return func(e *fleet.AuditEvent) bool { return truth(program, eventActivation{e}) }
}

// truth evaluates a condition; one that fails (a missing field, the cost
// limit) is false.
func truth(program cel.Program, vars interpreter.Activation) bool {
	out, _, err := program.Eval(vars)
	return err == nil && out == types.True
}

type readingActivation struct{ v *ReadingVars }

func (a readingActivation) ResolveName(name string) (any, bool) {
	switch name {
	case "value":
		return a.v.Value, true
	case "previous":
		return a.v.Previous, true
	case "change":
		return a.v.Value - a.v.Previous, true
	case "rate":
		return a.v.Rate, true
	case "metric":
		return a.v.Metric, true
	case "device":
		return a.v.Device, true
	case "cohort":
		return a.v.Cohort, true
	case "tags":
		return a.v.Tags, true
	}
	return nil, false
}

func (readingActivation) Parent() interpreter.Activation { return nil }

type eventActivation struct{ e *fleet.AuditEvent }

func (a eventActivation) ResolveName(name string) (any, bool) {
	switch name {
	case "fields":
		return a.e.Fields, true
	case "repeat":
		return int64(a.e.Count()), true
	case "class", "activity", "outcome", "program", "actor", "user", "message":
		return field(a.e, name), true
	}
	return nil, false
}

func (eventActivation) Parent() interpreter.Activation { return nil }
