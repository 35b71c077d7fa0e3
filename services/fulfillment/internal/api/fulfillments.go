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
	State      record.State     `json:"state" enum:"running,waiting,stuck,needs_attention,ended" doc:"needs_attention: an undo could not be done; stuck: it should have ended and waits for nobody."`
	StartedAt  time.Time        `json:"started_at"`
	EndedAt    time.Time        `json:"ended_at,omitzero"`
	Outcome    record.Outcome   `json:"outcome,omitempty" enum:"completed,failed,cancelled"`
	Waits      *waitBody        `json:"waits,omitempty" doc:"What it waits for; absent when it has ended."`

	Cancellation *cancellationBody `json:"cancellation,omitempty"`
	Approval     *approvalBody     `json:"approval,omitempty"`
	NotUndone    []string          `json:"not_undone,omitempty" doc:"The undo that could not be done, and those behind it."`
	Repairs      []repairBody      `json:"repairs,omitempty" doc:"Every repair that was ordered, oldest first."`
	Restarts     int               `json:"restarts,omitempty" doc:"How often the saga was run anew because the workflow engine had lost it."`
	Steps        []stepBody        `json:"steps,omitempty" doc:"In the order in which they began, as long as the workflow engine keeps them: an hour from the end, a week if the workflow failed."`
}

type waitBody struct {
	For     string    `json:"for" example:"approval"`
	Since   time.Time `json:"since"`
	Until   time.Time `json:"until,omitzero" doc:"When it stops waiting by itself."`
	MovedBy string    `json:"moved_by" doc:"What would move it."`
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
	Outcome   string    `json:"outcome" enum:"running,done,failing" doc:"failing: its last attempt did not succeed; it is retried, or was given up."`
	Error     string    `json:"error,omitempty"`
}

func (a API) shownSaga(e *record.Saga, steps []record.Step) fulfillmentBody {
	state, wait := a.Sagas.Wait(e)
	body := fulfillmentBody{
		OrderID: e.Order.OrderID, CustomerID: e.Order.CustomerID, Total: e.Order.TotalAmount, Currency: e.Order.Currency,
		State: state, StartedAt: e.StartedAt, EndedAt: e.EndedAt, Outcome: e.Outcome,
		Restarts: e.Restarts,
	}
	if wait != nil {
		body.Waits = &waitBody{For: wait.For, Since: wait.Since, Until: wait.Until, MovedBy: wait.MovedBy}
	}
	if e.Cancellation != nil {
		body.Cancellation = &cancellationBody{Reason: e.Cancellation.Reason, At: e.Cancellation.At}
	}
	if e.Approval != nil {
		approval := shownApproval(e)
		body.Approval = &approval
	}
	if e.Blocked != nil {
		body.NotUndone = e.Blocked.NotUndone
	}
	for _, r := range e.Repairs {
		body.Repairs = append(body.Repairs, repairBody(r))
	}
	for _, s := range steps {
		shown := stepBody{Step: s.Name, StartedAt: s.StartedAt, EndedAt: s.EndedAt, Attempts: s.Attempts, Outcome: "running", Error: s.Error}
		switch {
		case s.Done:
			shown.Outcome = "done"
		case s.Error != "":
			shown.Outcome = "failing"
		}
		body.Steps = append(body.Steps, shown)
	}
	return body
}

func (a API) getFulfillment(ctx context.Context, in *OrderPath) (*fulfillmentOutput, error) {
	e, steps, err := a.Sagas.Show(ctx, in.OrderID)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	return &fulfillmentOutput{a.shownSaga(&e, steps)}, nil
}

type listInput struct {
	State string `query:"state" enum:"running,waiting,stuck,needs_attention" doc:"Only those in this state."`
	Limit int    `query:"limit" minimum:"1" maximum:"500" default:"100"`
}

type listOutput struct {
	Body struct {
		Items []fulfillmentBody `json:"items" doc:"Oldest first."`
		More  bool              `json:"more" doc:"There are more than were asked for."`
	}
}

func (a API) listFulfillments(ctx context.Context, in *listInput) (*listOutput, error) {
	entries, more, err := a.Sagas.List(ctx, record.State(in.State), in.Limit)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	out := &listOutput{}
	out.Body.Items, out.Body.More = make([]fulfillmentBody, 0, len(entries)), more
	for i := range entries {
		out.Body.Items = append(out.Body.Items, a.shownSaga(&entries[i], nil))
	}
	return out, nil
}

type repairInput struct {
	OrderPath
	Body struct {
		Actor  string `json:"actor" minLength:"1" maxLength:"200" pattern:"[^\\t\\n\\f\\r ]" patternDescription:"a name" doc:"Who orders the repair." example:"operator@example.com"`
		Reason string `json:"reason" minLength:"1" maxLength:"500" pattern:"[^\\t\\n\\f\\r ]" patternDescription:"a reason" doc:"Why the undo will succeed now." example:"The carrier's API answers again."`
	}
}

func (a API) repair(ctx context.Context, in *repairInput) (*fulfillmentOutput, error) {
	e, err := a.Sagas.Repair(ctx, in.OrderID, in.Body.Actor, in.Body.Reason)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	return &fulfillmentOutput{a.shownSaga(&e, nil)}, nil
}
