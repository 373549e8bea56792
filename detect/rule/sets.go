package rule

import (
	"net/netip"
	"strconv"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// Set membership in conditions on events:
//
//	in_networks(actor, ["10.0.0.0/8", "2001:db8::/32"])
//	in_ports(fields["dst_endpoint.port"], ["22", "8000-8100"])
//
// A text that is no address or port is in no set; an entry that is no network
// or range contains nothing.
var (
	inNetworks = member("in_networks", func(text, entry string) bool {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return false
		}
		prefix, err := netip.ParsePrefix(entry)
		if err != nil {
			one, err := netip.ParseAddr(entry)
			return err == nil && one.Unmap() == addr.Unmap()
		}
		return prefix.Contains(addr.Unmap().WithZone(""))
	})
	inPorts = member("in_ports", func(text, entry string) bool {
		port, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return false
		}
		from, to, ranged := strings.Cut(entry, "-")
		low, err := strconv.ParseUint(from, 10, 16)
		if err != nil {
			return false
		}
		if !ranged {
			return port == low
		}
		high, err := strconv.ParseUint(to, 10, 16)
		return err == nil && low <= port && port <= high
	})
)

func member(name string, contains func(text, entry string) bool) cel.EnvOption {
	return cel.Function(name, cel.Overload(name+"_string_list", []*cel.Type{cel.StringType, cel.ListType(cel.StringType)}, cel.BoolType,
		cel.BinaryBinding(func(text, list ref.Val) ref.Val {
			value, ok := text.Value().(string)
			entries, ok2 := list.(traits.Iterable)
			if !ok || !ok2 {
				return types.False
			}
			for it := entries.Iterator(); it.HasNext() == types.True; {
				if entry, ok := it.Next().Value().(string); ok && contains(value, entry) {
					return types.True
				}
			}
			return types.False
		})))
}
