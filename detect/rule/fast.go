package rule

import (
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"

	"cordon/internal/fleet"
)

// The quick half of conditions: closures for the usual shapes. A nil result
// means that the shape is not among them, and CEL's interpreter runs it.

type quick[V any] struct {
	text   func(name string) func(V) string  // a text variable, nil if none
	number func(name string) func(V) float64 // a number variable, nil if none
}

func fastReading(tree *cel.Ast) Reading {
	q := quick[*ReadingVars]{
		text: func(name string) func(*ReadingVars) string {
			switch name {
			case "metric":
				return func(v *ReadingVars) string { return v.Metric }
			case "device":
				return func(v *ReadingVars) string { return v.Device }
			case "cohort":
				return func(v *ReadingVars) string { return v.Cohort }
			}
			return nil
		},
		number: func(name string) func(*ReadingVars) float64 {
			switch name {
			case "value":
				return func(v *ReadingVars) float64 { return v.Value }
			case "previous":
				return func(v *ReadingVars) float64 { return v.Previous }
			case "change":
				return func(v *ReadingVars) float64 { return v.Value - v.Previous }
			case "rate":
				return func(v *ReadingVars) float64 { return v.Rate }
			}
			return nil
		},
	}
	return Reading(q.boolean(tree.NativeRep().Expr()))
}

func fastEvent(tree *cel.Ast) Event {
	q := quick[*fleet.AuditEvent]{
		text: func(name string) func(*fleet.AuditEvent) string {
			switch name {
			case "class":
				return func(e *fleet.AuditEvent) string { return e.Class }
			case "activity":
				return func(e *fleet.AuditEvent) string { return e.Activity }
			case "outcome":
				return func(e *fleet.AuditEvent) string { return e.Outcome }
			case "program":
				return func(e *fleet.AuditEvent) string { return e.Program }
			case "actor":
				return func(e *fleet.AuditEvent) string { return e.Actor }
			case "user":
				return func(e *fleet.AuditEvent) string { return e.User }
			case "message":
				return func(e *fleet.AuditEvent) string { return e.Message }
			}
			return nil
		},
		number: func(string) func(*fleet.AuditEvent) float64 { return nil },
	}
	return Event(q.boolean(tree.NativeRep().Expr()))
}

func (q quick[V]) boolean(e ast.Expr) func(V) bool {
	if e.Kind() != ast.CallKind {
		return nil
	}
	call := e.AsCall()
	args := call.Args()
	switch call.FunctionName() {
	case operators.LogicalAnd, operators.LogicalOr:
		return q.junction(call.FunctionName() == operators.LogicalAnd, args)
	case operators.LogicalNot:
		inner := q.boolean(args[0])
		if inner == nil {
			return nil
		}
		return func(v V) bool { return !inner(v) }
	case "startsWith", "endsWith", "contains":
		return q.textTest(call)
	case operators.In:
		return q.membership(args)
	}
	if len(args) != 2 {
		return nil
	}
	if f := q.compareText(call.FunctionName(), args); f != nil {
		return f
	}
	return q.compareNumber(call.FunctionName(), args)
}

func (q quick[V]) junction(and bool, args []ast.Expr) func(V) bool {
	parts := make([]func(V) bool, len(args))
	for i, a := range args {
		if parts[i] = q.boolean(a); parts[i] == nil {
			return nil
		}
	}
	if len(parts) == 2 {
		a, b := parts[0], parts[1]
		if and {
			return func(v V) bool { return a(v) && b(v) }
		}
		return func(v V) bool { return a(v) || b(v) }
	}
	return func(v V) bool {
		for _, p := range parts {
			if p(v) != and {
				return !and
			}
		}
		return and
	}
}

func (q quick[V]) textTest(call ast.CallExpr) func(V) bool {
	if !call.IsMemberFunction() || call.Target().Kind() != ast.IdentKind || len(call.Args()) != 1 {
		return nil
	}
	get, want, ok := q.textPair(call.Target(), call.Args()[0])
	if !ok {
		return nil
	}
	test := map[string]func(string, string) bool{
		"startsWith": strings.HasPrefix, "endsWith": strings.HasSuffix, "contains": strings.Contains,
	}[call.FunctionName()]
	return func(v V) bool { return test(get(v), want) }
}

func (q quick[V]) membership(args []ast.Expr) func(V) bool {
	if args[0].Kind() != ast.IdentKind || args[1].Kind() != ast.ListKind {
		return nil
	}
	get := q.text(args[0].AsIdent())
	if get == nil {
		return nil
	}
	var wanted []string
	for _, element := range args[1].AsList().Elements() {
		s, ok := literal[string](element)
		if !ok {
			return nil
		}
		wanted = append(wanted, s)
	}
	return func(v V) bool { return slices.Contains(wanted, get(v)) }
}

func (q quick[V]) compareText(op string, args []ast.Expr) func(V) bool {
	get, want, ok := q.textPair(args[0], args[1])
	if !ok {
		return nil
	}
	switch op {
	case operators.Equals:
		return func(v V) bool { return get(v) == want }
	case operators.NotEquals:
		return func(v V) bool { return get(v) != want }
	}
	return nil
}

func (q quick[V]) textPair(variable, constant ast.Expr) (get func(V) string, want string, ok bool) {
	if variable.Kind() != ast.IdentKind {
		return nil, "", false
	}
	get = q.text(variable.AsIdent())
	want, ok = literal[string](constant)
	return get, want, ok && get != nil
}

func (q quick[V]) compareNumber(op string, args []ast.Expr) func(V) bool {
	if args[0].Kind() != ast.IdentKind {
		return nil
	}
	get := q.number(args[0].AsIdent())
	limit, ok := literal[float64](args[1])
	if get == nil || !ok {
		return nil
	}
	switch op {
	case operators.Greater:
		return func(v V) bool { return get(v) > limit }
	case operators.GreaterEquals:
		return func(v V) bool { return get(v) >= limit }
	case operators.Less:
		return func(v V) bool { return get(v) < limit }
	case operators.LessEquals:
		return func(v V) bool { return get(v) <= limit }
	case operators.Equals:
		return func(v V) bool { return get(v) == limit }
	case operators.NotEquals:
		return func(v V) bool { return get(v) != limit }
	}
	return nil
}

func literal[T any](e ast.Expr) (T, bool) {
	var none T
	if e.Kind() != ast.LiteralKind {
		return none, false
	}
	v, ok := e.AsLiteral().Value().(T)
	return v, ok
}

// Limit returns the number that a condition of the shape "value OP number"
// compares with, for explanations.
func (r *Rule) Limit() (limit float64, op string, ok bool) {
	tree, _, err := compile(readingEnv, r.When)
	if r.Kind != Threshold || err != nil {
		return 0, "", false
	}
	e := tree.NativeRep().Expr()
	if e.Kind() != ast.CallKind || len(e.AsCall().Args()) != 2 {
		return 0, "", false
	}
	args := e.AsCall().Args()
	if args[0].Kind() != ast.IdentKind || args[0].AsIdent() != "value" {
		return 0, "", false
	}
	limit, ok = literal[float64](args[1])
	op, _ = operators.FindReverse(e.AsCall().FunctionName())
	return limit, op, ok
}
