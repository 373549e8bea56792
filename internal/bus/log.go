package bus

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
)

// serverLog hands the broker's log to slog. The broker says a great deal at
// its notice level; what matters to an operator are warnings and errors.
type serverLog struct {
	log     *slog.Logger
	refused func(string)

	mu    sync.Mutex
	fatal string
}

func (l *serverLog) Noticef(format string, v ...any) { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l *serverLog) Debugf(format string, v ...any)  { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l *serverLog) Tracef(format string, v ...any)  { l.log.Debug(fmt.Sprintf(format, v...)) }

func (l *serverLog) Warnf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	if gateSaysIt(text) {
		l.log.Debug(text)
		return
	}
	l.log.Warn(text)
}

func (l *serverLog) Errorf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	if strings.Contains(text, "TLS handshake error") && l.refused != nil {
		l.refused(text)
		return
	}
	if gateSaysIt(text) {
		l.log.Debug(text)
		return
	}
	l.log.Error(text)
}

// gateSaysIt is true for lines about refused and cut clients, which the gate
// counts and logs itself, with the reason and without floods.
func gateSaysIt(text string) bool {
	for _, part := range []string{
		"uth callout service returned an error", "authentication error", "Closing because a remote connection has started",
	} {
		if strings.Contains(text, part) {
			return true
		}
	}
	return false
}

func (l *serverLog) Fatalf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	l.mu.Lock()
	l.fatal = text
	l.mu.Unlock()
	l.log.Error(text)
}

func (l *serverLog) lastFatal() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fatal
}
