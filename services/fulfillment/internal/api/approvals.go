package api

import (
	"context"
	"time"

	"waybill/contracts"
	"waybill/services/fulfillment/internal/record"
)

type approvalOutput struct{ Body approvalBody }

type approvalBody struct {
	OrderID     string           `json:"order_id"`
	CustomerID  string           `json:"customer_id"`
	Total       contracts.Amount `json:"total_amount"`
	Currency    string           `json:"currency"`
	State       string           `json:"state" enum:"pending,approved,refused,expired,cancelled"`
	RequestedAt time.Time        `json:"requested_at"`
	ExpiresAt   time.Time        `json:"expires_at" doc:"Without a decision the order is refused then."`
	Decision    *decisionBody    `json:"decision,omitempty"`
}

type decisionBody struct {
	Approved bool      `json:"approved"`
	Approver string    `json:"approver,omitempty" doc:"Absent when nobody decided."`
	Reason   string    `json:"reason,omitempty"`
	At       time.Time `json:"at"`
}

const (
	approvalPending   = "pending"
	approvalApproved  = "approved"
	approvalRefused   = "refused"
	approvalExpired   = "expired"
	approvalCancelled = "cancelled"
)

func approvalState(e *record.Saga) string {
	d := e.Approval.Decision
	switch {
	case d == nil:
		return approvalPending
	case d.Approved:
		return approvalApproved
	case d.Code == record.CodeTimedOut:
		return approvalExpired
	case d.Code == record.CodeCancelled:
		return approvalCancelled
	default:
		return approvalRefused
	}
}

func shownDecision(d *record.Decision) *decisionBody {
	if d == nil {
		return nil
	}
	return &decisionBody{Approved: d.Approved, Approver: d.Approver, Reason: d.Reason, At: d.At}
}

func shownApproval(e *record.Saga) approvalBody {
	return approvalBody{
		OrderID: e.Order.OrderID, CustomerID: e.Order.CustomerID, Total: e.Order.TotalAmount, Currency: e.Order.Currency,
		State: approvalState(e), RequestedAt: e.Approval.RequestedAt, ExpiresAt: e.Approval.ExpiresAt, Decision: shownDecision(e.Approval.Decision),
	}
}

type listApprovalsInput struct {
	State string `query:"state" enum:"pending,approved,refused,expired,cancelled,all" default:"pending"`
	Limit int    `query:"limit" minimum:"1" maximum:"500" default:"100"`
}

type listApprovalsOutput struct {
	Body struct {
		Items []approvalBody `json:"items" doc:"Oldest first."`
		More  bool           `json:"more" doc:"There are more than were asked for."`
	}
}

func (a API) listApprovals(ctx context.Context, in *listApprovalsInput) (*listApprovalsOutput, error) {
	entries, more, err := a.Sagas.Approvals(ctx, func(e *record.Saga) bool {
		return e.Approval != nil && (in.State == "all" || approvalState(e) == in.State)
	}, in.Limit)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	out := &listApprovalsOutput{}
	out.Body.Items, out.Body.More = make([]approvalBody, 0, len(entries)), more
	for i := range entries {
		out.Body.Items = append(out.Body.Items, shownApproval(&entries[i]))
	}
	return out, nil
}

type decideInput struct {
	OrderPath
	Body struct {
		Approved bool   `json:"approved" doc:"Whether the order may be shipped."`
		Approver string `json:"approver" minLength:"1" maxLength:"200" pattern:"[^\\t\\n\\f\\r ]" patternDescription:"a name" doc:"Who decides." example:"approver@example.com"`
		Reason   string `json:"reason" minLength:"1" maxLength:"500" pattern:"[^\\t\\n\\f\\r ]" patternDescription:"a reason" doc:"Why. Of a refusal the customer is told." example:"Known customer, address checked."`
	}
}

func (a API) decide(ctx context.Context, in *decideInput) (*approvalOutput, error) {
	e, err := a.Sagas.Decide(ctx, in.OrderID, in.Body.Approved, in.Body.Approver, in.Body.Reason)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	return &approvalOutput{shownApproval(&e)}, nil
}
