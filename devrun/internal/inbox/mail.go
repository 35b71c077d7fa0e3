package inbox

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"regexp"
	"strings"

	"github.com/emersion/go-smtp"
	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"

	"waybill/contracts"
)

// largest is the most bytes a message of any channel may have.
const largest = 1 << 20

// mailSession takes the mails of one SMTP connection.
type mailSession struct {
	take func(Message) error
	// closing is closed when the inbox stops.
	closing <-chan struct{}
	from    string
	to      []string
	// eightBit says that the sender announced a body beyond ASCII.
	eightBit bool
}

// Reset implements smtp.Session.
func (s *mailSession) Reset() { s.from, s.to, s.eightBit = "", nil, false }

// Logout implements smtp.Session.
func (s *mailSession) Logout() error { return nil }

// Mail implements smtp.Session. An empty sender is that of a report.
func (s *mailSession) Mail(from string, options *smtp.MailOptions) error {
	if from != "" {
		if err := checkMailbox(from); err != nil {
			return err
		}
	}
	s.from, s.eightBit = from, options != nil && options.Body == smtp.Body8BitMIME
	return nil
}

// Rcpt implements smtp.Session.
func (s *mailSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	if err := checkMailbox(to); err != nil {
		return err
	}
	if err := triggered(to, s.closing); err != nil {
		return err
	}
	s.to = append(s.to, to)
	return nil
}

// Data implements smtp.Session. The mail is kept when it returns nil, once for all its recipients.
func (s *mailSession) Data(r io.Reader) error {
	content, err := readContent(r, s.eightBit)
	var m Message
	if err == nil {
		m, err = readMail(bytes.NewReader(content))
	}
	if err != nil {
		if _, refused := errors.AsType[*smtp.SMTPError](err); refused { // that the mail is too large is the server's own
			return err
		}
		return &smtp.SMTPError{Code: 554, EnhancedCode: smtp.EnhancedCode{5, 6, 0}, Message: "Not a readable message: " + err.Error()}
	}
	if m.From == "" {
		m.From = s.from
	}
	m.To = strings.Join(s.to, ", ")
	if err := s.take(m); err != nil {
		return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "The message could not be kept"}
	}
	return nil
}

// readMail reads a message as RFC 5322 and MIME write it. It gives no recipients: those are the envelope's.
func readMail(r io.Reader) (Message, error) {
	parsed, err := mail.ReadMessage(r)
	if err != nil {
		return Message{}, err
	}
	if err := checkHeader(parsed.Header); err != nil {
		return Message{}, err
	}
	words := new(mime.WordDecoder)
	header := func(name string) string {
		text := parsed.Header.Get(name)
		if decoded, err := words.DecodeHeader(text); err == nil {
			return decoded
		}
		return text
	}
	m := Message{
		Channel:        contracts.ChannelEmail,
		From:           header("From"),
		Subject:        header("Subject"),
		NotificationID: parsed.Header.Get("Notification-Id"),
	}
	var plain string
	err = bodies(parsed.Header.Get("Content-Type"), parsed.Header.Get("Content-Transfer-Encoding"), parsed.Body, &plain, &m.HTML)
	if err != nil {
		return Message{}, err
	}
	m.Text = strings.TrimSpace(strings.ReplaceAll(plain, "\r\n", "\n"))
	if m.Text == "" {
		m.Text = readable(m.HTML)
	}
	if found := reference.FindStringSubmatch(m.Text); m.NotificationID == "" && found != nil {
		m.NotificationID = found[1]
	}
	return m, nil
}

// reference is the line by which notifications names a mail: Dapr's SMTP binding takes no header of its own.
var reference = regexp.MustCompile(`(?m)^Reference: (\S+)\. `)

// bodies finds the first text and the first HTML in a message part and in the parts it consists of.
func bodies(contentType, encoding string, body io.Reader, plain, rich *string) error {
	kind, parameters, err := mime.ParseMediaType(contentType)
	if err != nil {
		kind = "text/plain" // RFC 2045: what a message without a proper type is
	}
	if strings.HasPrefix(kind, "multipart/") {
		parts := multipart.NewReader(body, parameters["boundary"])
		for {
			part, err := parts.NextRawPart()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("read the parts: %w", err)
			}
			err = bodies(part.Header.Get("Content-Type"), part.Header.Get("Content-Transfer-Encoding"), part, plain, rich)
			if err != nil {
				return err
			}
		}
	}
	target := plain
	if kind == "text/html" {
		target = rich
	}
	if !strings.HasPrefix(kind, "text/") || *target != "" {
		return nil
	}
	switch strings.ToLower(strings.TrimSpace(encoding)) {
	case "quoted-printable":
		body = quotedprintable.NewReader(body)
	case "base64":
		body = base64.NewDecoder(base64.StdEncoding, body)
	}
	text, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	*target = strings.ToValidUTF8(string(text), "\uFFFD")
	return nil
}

// readable is what a page of HTML says, in lines.
func readable(page string) string {
	var b strings.Builder
	tokens := html.NewTokenizer(strings.NewReader(page))
	hidden := 0
	for {
		switch tokens.Next() {
		case html.ErrorToken:
			return lines(b.String())
		case html.TextToken:
			if hidden == 0 {
				b.WriteString(lineEndsAreBlanks.Replace(string(tokens.Text())))
			}
		case html.StartTagToken, html.SelfClosingTagToken, html.EndTagToken:
			token := tokens.Token()
			switch token.DataAtom {
			case atom.Style, atom.Script, atom.Title:
				switch token.Type {
				case html.StartTagToken:
					hidden++
				case html.EndTagToken:
					hidden = max(0, hidden-1)
				}
			case atom.Br, atom.P, atom.Div, atom.Tr, atom.Table, atom.Li, atom.Ul, atom.Ol, atom.Dt, atom.H1, atom.H2, atom.H3, atom.Hr:
				b.WriteString("\n")
			case atom.Td, atom.Th, atom.Dd:
				b.WriteString(" ")
			}
		}
	}
}

// lineEndsAreBlanks reads HTML as a browser does: only elements end a line.
var lineEndsAreBlanks = strings.NewReplacer("\r", " ", "\n", " ")

// lines joins blanks within lines and drops empty lines.
func lines(text string) string {
	var kept []string
	for line := range strings.Lines(text) {
		if words := strings.Fields(line); len(words) > 0 {
			kept = append(kept, strings.Join(words, " "))
		}
	}
	return strings.Join(kept, "\n")
}
