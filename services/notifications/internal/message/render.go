package message

import (
	"embed"
	"fmt"
	html "html/template"
	"io"
	"strings"
	"sync"
	text "text/template"
	"time"

	"waybill/contracts"
)

// Text is the content of a message as its recipient reads it.
type Text struct {
	// Subject is the subject of a mail or the title of a push message. SMS messages have none.
	Subject string
	// Body is HTML in a mail and plain text elsewhere.
	Body string
}

// Outgoing is a message as a channel sends it. The id is the same for every attempt.
type Outgoing struct {
	ID, OrderID string
	Text
}

// OperatorTemplates lists the templates of messages to the operators. They are sent by email only.
func OperatorTemplates() []string {
	return []string{TemplateApprovalRequested, TemplateNeedsAttention, TemplateLowStock, TemplateDepleted}
}

// Each file is named <template>.<channel>.tmpl. Its first line is "Subject:" and the subject, which is empty for SMS. The body
// follows after an empty line.
//
//go:embed templates/*.tmpl
var files embed.FS

type template struct {
	subject, body interface {
		Execute(w io.Writer, data any) error
	}
}

// facts is the data of a template.
type facts struct {
	Facts

	OrderID, Reference, Name string
}

var functions = map[string]any{
	"day":    func(t time.Time) string { return t.UTC().Format("Monday, 2 January 2006") },
	"moment": func(t time.Time) string { return t.UTC().Format("2 January 2006, 15:04 UTC") },
	"money":  contracts.Amount.In,
	"list":   func(words []string) string { return strings.Join(words, ", ") },
	"short":  func(s string) string { return clip(s, 160) },
}

var templates = sync.OnceValues(func() (map[string]template, error) {
	entries, err := files.ReadDir("templates")
	if err != nil {
		return nil, fmt.Errorf("list the templates: %w", err)
	}
	layout, err := files.ReadFile("templates/layout.html.tmpl")
	if err != nil {
		return nil, fmt.Errorf("read the layout of mails: %w", err)
	}
	all := map[string]template{}
	for _, entry := range entries {
		name := strings.TrimSuffix(entry.Name(), ".tmpl")
		if name == "layout.html" {
			continue
		}
		content, err := files.ReadFile("templates/" + entry.Name())
		if err != nil {
			return nil, fmt.Errorf("read a template: %w", err)
		}
		if all[name], err = parse(name, string(content), string(layout)); err != nil {
			return nil, fmt.Errorf("parse template %s: %w", name, err)
		}
	}
	return all, nil
})

func parse(name, content, layout string) (template, error) {
	first, body, _ := strings.Cut(content, "\n\n")
	body = strings.TrimSpace(body)
	first = strings.TrimSpace(strings.TrimPrefix(first, "Subject:"))
	subject, err := text.New(name).Funcs(functions).Parse(first)
	if err != nil {
		return template{}, err
	}
	if !strings.HasSuffix(name, "."+contracts.ChannelEmail) {
		plain, err := text.New(name).Funcs(functions).Parse(body)
		return template{subject, plain}, err
	}
	mail, err := html.New(name).Funcs(functions).Parse(layout)
	if err != nil {
		return template{}, err
	}
	_, err = mail.New("body").Parse(body)
	return template{subject, mail}, err
}

// Render returns the content of the message for its channel. Name is the name of the recipient, or empty.
func (m *Message) Render(name string) (Outgoing, error) {
	all, err := templates()
	if err != nil {
		return Outgoing{}, err
	}
	t, ok := all[m.Template+"."+m.Channel]
	if !ok {
		return Outgoing{}, &Refusal{CodeNoTemplate, "There is no template " + m.Template + " for " + m.Channel + "."}
	}
	data := facts{m.Facts, m.OrderID, m.ID, clip(name, maxName)}
	var subject, body strings.Builder
	if err := t.subject.Execute(&subject, data); err != nil {
		return Outgoing{}, fmt.Errorf("write the subject of %s: %w", m.Template, err)
	}
	if err := t.body.Execute(&body, data); err != nil {
		return Outgoing{}, fmt.Errorf("write the body of %s: %w", m.Template, err)
	}
	return Outgoing{m.ID, m.OrderID, Text{subject.String(), body.String()}}, nil
}
