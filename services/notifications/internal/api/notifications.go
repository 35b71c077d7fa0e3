package api

import (
	"context"
	"time"

	"waybill/services/notifications/internal/message"
)

type listInput struct {
	OrderID string `query:"order_id" required:"true" pattern:"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$" patternDescription:"1 to 64 letters, digits, dots, underscores and hyphens, the first a letter or digit" example:"ORD-1001"`
}

type listOutput struct{ Body notifications }

type notifications struct {
	Items []notification `json:"items" nullable:"false"`
}

type notification struct {
	NotificationID string        `json:"notification_id"`
	OrderID        string        `json:"order_id,omitempty"`
	CustomerID     string        `json:"customer_id,omitempty"`
	Recipient      string        `json:"recipient" enum:"customer,operators"`
	Channel        string        `json:"channel" enum:"email,sms,push"`
	Template       string        `json:"template"`
	State          message.State `json:"state" enum:"pending,sending,waiting_for_address,delivered,failed"`
	Attempts       int           `json:"attempts" doc:"Calls of the channel, including one in progress."`
	RequestedAt    time.Time     `json:"requested_at"`
	LastAttemptAt  time.Time     `json:"last_attempt_at,omitzero"`
	NextAttemptAt  time.Time     `json:"next_attempt_at,omitzero"`
	LastError      string        `json:"last_error,omitempty" doc:"Why the last attempt failed."`
	WaitsUntil     time.Time     `json:"waits_until,omitzero" doc:"When the notification is given up, while the state is waiting_for_address."`
	Resends        []resend      `json:"resends,omitempty" nullable:"false" doc:"All requests to send it again, oldest first."`
	Outcome        *outcome      `json:"outcome,omitempty" doc:"The outcome, if the state is delivered or failed."`
}

type resend struct {
	Actor   string    `json:"actor"`
	Reason  string    `json:"reason"`
	At      time.Time `json:"at"`
	Earlier earlier   `json:"earlier" doc:"The outcome that the notification had before."`
}

type earlier struct {
	State message.State `json:"state" enum:"delivered,failed"`
	outcome
}

type outcome struct {
	At    time.Time `json:"at"`
	Code  string    `json:"code,omitempty" doc:"Why it failed, for programs."`
	Error string    `json:"error,omitempty" doc:"Why it failed, for people."`
}

func shown(m *message.Message) notification {
	n := notification{
		NotificationID: m.ID, OrderID: m.OrderID, CustomerID: m.CustomerID, Recipient: "customer", Channel: m.Channel,
		Template: m.Template, State: m.State, Attempts: m.Attempts, RequestedAt: m.RequestedAt.UTC(),
		LastAttemptAt: m.LastAttemptAt, NextAttemptAt: m.NextAttemptAt, LastError: m.LastError,
	}
	if m.ToOperators() {
		n.Recipient = "operators"
	}
	if m.State == message.Waiting {
		n.WaitsUntil = m.WaitsUntil.UTC()
	}
	for _, r := range m.Resends {
		n.Resends = append(n.Resends, resend{r.Actor, r.Reason, r.At, earlier{r.Earlier.State, outcome{r.Earlier.At, r.Earlier.Code, r.Earlier.Error}}})
	}
	if m.Final() {
		n.Outcome = &outcome{m.FinishedAt, m.Code, m.Error}
	}
	return n
}

func (a API) list(ctx context.Context, in *listInput) (*listOutput, error) {
	messages, err := a.Messages.OfOrder(ctx, in.OrderID)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	out := &listOutput{notifications{make([]notification, len(messages))}}
	for i := range messages {
		out.Body.Items[i] = shown(&messages[i])
	}
	return out, nil
}

type getInput struct {
	ID string `path:"id" example:"ORD-1001:order_shipped:email"`
}

type getOutput struct{ Body notification }

func (a API) get(ctx context.Context, in *getInput) (*getOutput, error) {
	if message.CheckID(in.ID) != nil {
		return nil, a.problem(ctx, message.ErrNotFound())
	}
	m, err := a.Messages.Get(ctx, in.ID)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	return &getOutput{shown(&m)}, nil
}

type resendInput struct {
	ID   string `path:"id" example:"ORD-1001:order_shipped:email"`
	Body struct {
		Actor           string `json:"actor" minLength:"1" maxLength:"200" pattern:"\\S" patternDescription:"a name" doc:"Who sends it again." example:"operator@example.com"`
		Reason          string `json:"reason" minLength:"1" maxLength:"500" pattern:"\\S" patternDescription:"a reason" doc:"Why it can be delivered now." example:"The mail server accepts mail again."`
		EvenIfDelivered bool   `json:"even_if_delivered,omitempty" doc:"Whether to send a delivered notification again, for example to a corrected address."`
	}
}

func (a API) resend(ctx context.Context, in *resendInput) (*getOutput, error) {
	if message.CheckID(in.ID) != nil {
		return nil, a.problem(ctx, message.ErrNotFound())
	}
	m, err := a.Courier.Resend(ctx, in.ID, in.Body.Actor, in.Body.Reason, in.Body.EvenIfDelivered)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	return &getOutput{shown(&m)}, nil
}
