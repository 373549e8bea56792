package simulate

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	webhook "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"
)

const chatSecret = "whsec_Q29yZG9uIHRlc3Qgc2VjcmV0IDAxMjM0NTY3ODkwMTIz"

func chat(t *testing.T) *ChatReceiver {
	t.Helper()
	c, err := NewChatReceiver(chatSecret, time.Now)
	require.NoError(t, err)
	return c
}

func post(t *testing.T, c *ChatReceiver, path, id, secret, body string) int {
	t.Helper()
	req := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	if id != "" {
		signer, err := webhook.NewWebhook(secret)
		require.NoError(t, err)
		now := time.Now()
		signature, err := signer.Sign(id, now, []byte(body))
		require.NoError(t, err)
		req.Header.Set(webhook.HeaderWebhookID, id)
		req.Header.Set(webhook.HeaderWebhookTimestamp, fmt.Sprint(now.Unix()))
		req.Header.Set(webhook.HeaderWebhookSignature, signature)
	}
	w := httptest.NewRecorder()
	c.ServeHTTP(w, req)
	return w.Code
}

const opened = `{"specversion":"1.0","type":"cordon.incident.opened","data":{"incident":{"id":"INC-7","device":"d1","severity":"high","title":"<b>hot</b>"}}}`

func TestChat_takesSignedOnly(t *testing.T) {
	c := chat(t)
	require.Equal(t, http.StatusNoContent, post(t, c, ChatWebhookPath, "m1", chatSecret, opened))
	require.Equal(t, http.StatusUnauthorized, post(t, c, ChatWebhookPath, "m2", "whsec_b3RoZXJvdGhlcm90aGVyb3RoZXJvdGhlcg==", opened))
	require.Equal(t, http.StatusUnauthorized, post(t, c, ChatWebhookPath, "", "", opened))
	require.Equal(t, http.StatusBadRequest, post(t, c, ChatWebhookPath, "m3", chatSecret, "no JSON"))
	require.Equal(t, 3, c.Refused())
	messages := c.Messages()
	require.Len(t, messages, 1)
	require.True(t, messages[0].Signed)
	require.Equal(t, "INC-7 opened on d1", messages[0].Title)
}

func TestChat_countsCopies(t *testing.T) {
	c := chat(t)
	for range 3 {
		require.Equal(t, http.StatusNoContent, post(t, c, ChatWebhookPath, "m1", chatSecret, opened))
	}
	require.Len(t, c.Messages(), 1)
	require.Equal(t, 3, c.Messages()[0].Copies)
}

func TestChat_keepsTheLast(t *testing.T) {
	c := chat(t)
	for n := range maxChat + 50 {
		body, err := json.Marshal(map[string]any{"text": fmt.Sprint("message ", n)})
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, post(t, c, ChatSlackPath, "", "", string(body)))
	}
	require.Len(t, c.Messages(), maxChat)
	require.Equal(t, fmt.Sprint("message ", maxChat+49), c.Messages()[0].Title)
}

func TestChat_pageIsPlainAndSafe(t *testing.T) {
	c := chat(t)
	require.Equal(t, http.StatusNoContent, post(t, c, ChatWebhookPath, "m1", chatSecret, opened))
	require.Equal(t, http.StatusOK, post(t, c, ChatSlackPath, "", "", `{"text":"t","blocks":[
		{"type":"header","text":{"type":"plain_text","text":"INC-8 opened"}},
		{"type":"section","text":{"type":"plain_text","text":"why"}},
		{"type":"section","fields":[{"type":"mrkdwn","text":"*Severity*\nhigh"},{"type":"mrkdwn","text":"*Seen*\n&lt;9"}]},
		{"type":"actions","elements":[{"type":"button","text":{"type":"plain_text","text":"Open"},"url":"javascript:alert(1)"}]}]}`))
	w := httptest.NewRecorder()
	c.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	page := w.Body.String()
	require.Equal(t, http.StatusOK, w.Code)
	require.Contains(t, page, "&lt;b&gt;hot&lt;/b&gt;")
	require.Contains(t, page, "<dt>Seen</dt><dd>&lt;9</dd>")
	require.Contains(t, page, `class="high"`)
	require.NotContains(t, page, `href="javascript:`)
	require.NotContains(t, page, "src=")
	require.NotContains(t, page, "<script")
	require.Contains(t, w.Header().Get("Content-Security-Policy"), "default-src 'none'")
}
