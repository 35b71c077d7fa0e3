package inbox

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// Print writes a message for a person, with the time in the zone at.
func Print(out io.Writer, m Message, at *time.Location) error {
	var b strings.Builder
	fmt.Fprintf(&b, "── %s  %s to %s\n", m.ReceivedAt.In(at).Format("2006-01-02 15:04:05"), m.Channel, visible(m.To))
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "   %-8s %s\n", name, visible(value))
		}
	}
	line("from", m.From)
	line("id", m.NotificationID)
	line("subject", m.Subject)
	b.WriteString("\n")
	for text := range strings.Lines(m.Text) {
		fmt.Fprintf(&b, "   %s\n", visible(strings.TrimRight(text, "\r\n")))
	}
	b.WriteString("\n")
	_, err := io.WriteString(out, b.String())
	return err
}

// visible replaces control characters: what a message says shall not steer the terminal that shows it.
func visible(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' {
			return ' '
		}
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '\uFFFD'
		}
		return r
	}, text)
}
