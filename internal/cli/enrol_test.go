package cli

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"cordon/internal/identity"
)

// A file for many requests: every part has the header, and a fault is told
// with its line in the file.
func TestSplitCSV(t *testing.T) {
	var text strings.Builder
	text.WriteString("id,owner\r\n\r\n")
	for i := range bulkLines {
		fmt.Fprintf(&text, "d%d,\"two\nlines\"\n", i)
	}
	text.WriteString("bad id,\nd-last,")
	parts, err := splitCSV([]byte(text.String()))
	require.NoError(t, err)
	require.Len(t, parts, 2)
	_, faults := identity.ParseBulk(strings.NewReader(string(parts[1].text)))
	require.Len(t, faults, 1)
	require.Equal(t, 2, faults[0].Line)
	require.Equal(t, 3+2*bulkLines, parts[1].line(faults[0].Line))
	require.True(t, strings.HasSuffix(string(parts[1].text), "\nd-last,\n"))
	require.Equal(t, 5, parts[0].line(4))

	parts, err = splitCSV([]byte(""))
	require.NoError(t, err)
	require.Len(t, parts, 1, "Cordon says what is wrong")
}
