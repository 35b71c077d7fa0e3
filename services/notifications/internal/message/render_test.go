package message_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"waybill/contracts"
	"waybill/services/notifications/internal/message"
)

var update = flag.Bool("update", false, "update the golden files")

var at = time.Date(2026, time.March, 14, 9, 26, 53, 0, time.UTC)

// full returns a message with all facts set. Texts from outside are hostile.
func full(template, channel string) message.Message {
	return message.Message{
		ID: "ORD-1001:" + template + ":" + channel, OrderID: "ORD-1001", CustomerID: "CUST-123", Channel: channel, Template: template,
		RequestedAt: at,
		Facts: message.Facts{
			TotalAmount: 99_9800, Currency: "USD", Carrier: "FedEx", TrackingNumber: "TRK-1001", EstimatedDelivery: at.Add(72 * time.Hour),
			Reason: `No carrier took the parcel <b>"today"</b>.`, Refunded: true, ExpiresAt: at.Add(24 * time.Hour),
			NotUndone: []string{contracts.StepRefundPayment, contracts.StepReleaseInventory}, ProductID: "PROD-001", Stock: 9, Warehouse: "WH-001",
		},
	}
}

// every calls test for each template and channel, once with all facts and once with as few as possible.
func every(t *testing.T, test func(t *testing.T, file, name string, m message.Message)) {
	t.Helper()
	run := func(template, channel string) {
		for _, name := range []string{"full", "bare"} {
			m, recipient := full(template, channel), "Test <Customer>"
			if name == "bare" {
				m.Facts, recipient = message.Facts{Currency: "USD"}, ""
			}
			file := template + "." + channel + "." + name
			t.Run(file, func(t *testing.T) {
				t.Parallel()
				test(t, filepath.Join("testdata", file+".golden"), recipient, m)
			})
		}
	}
	for _, template := range contracts.Templates() {
		for _, channel := range contracts.Channels() {
			run(template, channel)
		}
	}
	for _, template := range message.OperatorTemplates() {
		run(template, contracts.ChannelEmail)
	}
}

func TestEveryTemplateForEveryChannel(t *testing.T) {
	t.Parallel()
	every(t, func(t *testing.T, file, name string, m message.Message) {
		t.Helper()
		out, err := m.Render(name)
		if err != nil {
			t.Fatal(err)
		}
		got := "Subject: " + out.Subject + "\n\n" + out.Body + "\n"
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatalf("%v; run the test with -update", err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("(-golden +got)\n%s", diff)
		}
		if strings.ContainsAny(out.Subject, "\r\n") {
			t.Error("the subject has several lines")
		}
		if mail := m.Channel == contracts.ChannelEmail; mail != strings.Contains(out.Body, m.ID) {
			t.Error("mails must name their reference, other messages must not")
		}
		if strings.Contains(out.Body, "<Customer>") || m.Channel == contracts.ChannelEmail && strings.Contains(out.Body, "<b>") {
			t.Error("a text from outside is not escaped")
		}
	})
}

func TestEveryGoldenFileIsUsed(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.golden")
	if err != nil {
		t.Fatal(err)
	}
	if want := 2 * (len(contracts.Templates())*len(contracts.Channels()) + len(message.OperatorTemplates())); len(files) != want && !*update {
		t.Errorf("%d golden files, want %d", len(files), want)
	}
}

func TestAMissingTemplate(t *testing.T) {
	t.Parallel()
	m := full(message.TemplateLowStock, contracts.ChannelSMS)
	_, err := m.Render("")
	refusal, ok := errors.AsType[*message.Refusal](err)
	if !ok || refusal.Code != message.CodeNoTemplate {
		t.Errorf("got %v", err)
	}
}

func TestALongReasonIsShortenedInSMS(t *testing.T) {
	t.Parallel()
	m := full(contracts.TemplateOrderFailed, contracts.ChannelSMS)
	m.Facts.Reason = strings.Repeat("long words ", 100)
	out, err := m.Render("")
	if err != nil || len([]rune(out.Body)) > 300 {
		t.Errorf("%d characters, %v", len([]rune(out.Body)), err)
	}
	if !slices.Contains([]rune(out.Body), '…') {
		t.Error("the text does not show that it was shortened")
	}
}

func TestAmountsHaveTheDecimalsOfTheirCurrency(t *testing.T) {
	t.Parallel()
	for want, facts := range map[string]message.Facts{
		"705 JPY": {TotalAmount: 705_0000, Currency: "JPY"}, "1.234 KWD": {TotalAmount: 1_2340, Currency: "KWD"},
		"1.200 KWD": {TotalAmount: 1_2000, Currency: "KWD"}, "99.98 USD": {TotalAmount: 99_9800, Currency: "USD"},
	} {
		m := full(contracts.TemplateOrderShipped, contracts.ChannelEmail)
		m.Facts.TotalAmount, m.Facts.Currency = facts.TotalAmount, facts.Currency
		if out, err := m.Render(""); err != nil || !strings.Contains(out.Body, "Order total: "+want+"<") {
			t.Errorf("the mail does not say %s: %v", want, err)
		}
	}
}
