package api

import (
	"context"
	"time"

	"waybill/contracts"
	"waybill/services/fulfillment/internal/record"
)

// OrderPath is exported because huma reads embedded parameters only from exported types.
type OrderPath struct {
	OrderID string `path:"order_id" maxLength:"64" pattern:"^[A-Za-z0-9][A-Za-z0-9._-]*$" patternDescription:"letters, digits, dot, underscore, hyphen" example:"ORD-1001"`
}

type fulfillmentOutput struct{ Body fulfillmentBody }

type fulfillmentBody struct {
	OrderID    string           `json:"order_id"`
	CustomerID string           `json:"customer_id"`
	Total      contracts.Amount `json:"total_amount"`
	Currency   string           `json:"currency"`
	State      record.State     `json:"state" enum:"running,waiting,stuck,needs_attention,ended" doc:"needs_attention: a compensation failed. stuck: it should have ended and waits for no person."`
	StartedAt  time.Time        `json:"started_at"`
	EndedAt    time.Time        `json:"ended_at,omitzero"`
	Outcome    record.Outcome   `json:"outcome,omitempty" enum:"completed,failed,cancelled"`
	Waits      *waitBody        `json:"waits,omitempty" doc:"What it waits for; absent if it has ended."`

	Cancellation *cancellationBody `json:"cancellation,omitempty"`
	Approval     *approvalBody     `json:"approval,omitempty"`
	NotUndone    []string          `json:"not_undone,omitempty" doc:"The compensation that failed, and those after it."`
	Repairs      []repairBody      `json:"repairs,omitempty" doc:"Every repair that a person ordered, oldest first."`
	Restarts     int               `json:"restarts,omitempty" doc:"How often the saga was started again because the workflow engine had lost it."`
	Steps        []stepBody        `json:"steps,omitempty" doc:"In the order in which they began. The workflow engine keeps them for an hour after the end, a week if the workflow failed."`
}

type waitBody struct {
	For     string    `json:"for" example:"approval"`
	Since   time.Time `json:"since"`
	Until   time.Time `json:"until,omitzero" doc:"When the wait ends by itself."`
	MovedBy string    `json:"moved_by" doc:"What would end the wait."`
}

type cancellationBody struct {
	Reason string    `json:"reason,omitempty"`
	At     time.Time `json:"at"`
}

type repairBody struct {
	Actor  string    `json:"actor"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
}

type stepBody struct {
	Step      string    `json:"step" example:"ValidatePayment"`
	StartedAt time.Time `json:"started_at"`
	EndedAt   time.Time `json:"ended_at,omitzero"`
	Attempts  int       `json:"attempts"`
	Outcome   string    `json:"outcome" enum:"running,done,failing" doc:"failing: its last attempt failed; it is retried, or has no attempts left."`
	Error     string    `json:"error,omitempty"`
}

func (a API) newFulfillmentBody(s *record.Saga, steps []record.Step) fulfillmentBody {
	state, wait := a.Sagas.State(s)
	body := fulfillmentBody{
		OrderID: s.Order.OrderID, CustomerID: s.Order.CustomerID, Total: s.Order.TotalAmount, Currency: s.Order.Currency,
		State: state, StartedAt: s.StartedAt, EndedAt: s.EndedAt, Outcome: s.Outcome,
		Restarts: s.Restarts,
	}
	if wait != nil {
		body.Waits = &waitBody{For: wait.For, Since: wait.Since, Until: wait.Until, MovedBy: wait.MovedBy}
	}
	if s.Cancellation != nil {
		body.Cancellation = &cancellationBody{Reason: s.Cancellation.Reason, At: s.Cancellation.At}
	}
	if s.Approval != nil {
		approval := newApprovalBody(s)
		body.Approval = &approval
	}
	if s.Blocked != nil {
		body.NotUndone = s.Blocked.NotUndone
	}
	for _, r := range s.Repairs {
		body.Repairs = append(body.Repairs, repairBody(r))
	}
	for i := range steps {
		body.Steps = append(body.Steps, newStepBody(&steps[i]))
	}
	return body
}

func newStepBody(s *record.Step) stepBody {
	outcome := "running"
	switch {
	case s.Done:
		outcome = "done"
	case s.Error != "":
		outcome = "failing"
	}
	return stepBody{Step: s.Name, StartedAt: s.StartedAt, EndedAt: s.EndedAt, Attempts: s.Attempts, Outcome: outcome, Error: s.Error}
}

func (a API) getFulfillment(ctx context.Context, in *OrderPath) (*fulfillmentOutput, error) {
	saga, steps, err := a.Sagas.Show(ctx, in.OrderID)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	return &fulfillmentOutput{a.newFulfillmentBody(&saga, steps)}, nil
}

type listInput struct {
	State string `query:"state" enum:"running,waiting,stuck,needs_attention" doc:"Only those in this state."`
	Limit int    `query:"limit" minimum:"1" maximum:"500" default:"100"`
}

type listOutput struct {
	Body struct {
		Items []fulfillmentBody `json:"items" doc:"Oldest first."`
		More  bool              `json:"more" doc:"There are more than limit."`
	}
}

func (a API) listFulfillments(ctx context.Context, in *listInput) (*listOutput, error) {
	sagas, more, err := a.Sagas.List(ctx, record.State(in.State), in.Limit)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	out := &listOutput{}
	out.Body.Items, out.Body.More = make([]fulfillmentBody, 0, len(sagas)), more
	for i := range sagas {
		out.Body.Items = append(out.Body.Items, a.newFulfillmentBody(&sagas[i], nil))
	}
	return out, nil
}

type repairInput struct {
	OrderPath
	Body struct {
		Actor  string `json:"actor" minLength:"1" maxLength:"200" pattern:"[^\\t\\n\\f\\r ]" patternDescription:"a name" doc:"The person who orders the repair." example:"operator@example.com"`
		Reason string `json:"reason" minLength:"1" maxLength:"500" pattern:"[^\\t\\n\\f\\r ]" patternDescription:"a reason" doc:"Why the compensation will succeed now." example:"The carrier's API answers again."`
	}
}

func (a API) repair(ctx context.Context, in *repairInput) (*fulfillmentOutput, error) {
	saga, err := a.Sagas.Repair(ctx, in.OrderID, in.Body.Actor, in.Body.Reason)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	return &fulfillmentOutput{a.newFulfillmentBody(&saga, nil)}, nil
}
