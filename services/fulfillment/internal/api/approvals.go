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
	ExpiresAt   time.Time        `json:"expires_at" doc:"The order is refused then, if it is not decided before."`
	Decision    *decisionBody    `json:"decision,omitempty"`
}

type decisionBody struct {
	Approved bool      `json:"approved"`
	Approver string    `json:"approver,omitempty" doc:"Absent if no person decided."`
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

func approvalState(s *record.Saga) string {
	d := s.Approval.Decision
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

func newDecisionBody(d *record.Decision) *decisionBody {
	if d == nil {
		return nil
	}
	return &decisionBody{Approved: d.Approved, Approver: d.Approver, Reason: d.Reason, At: d.At}
}

func newApprovalBody(s *record.Saga) approvalBody {
	return approvalBody{
		OrderID: s.Order.OrderID, CustomerID: s.Order.CustomerID, Total: s.Order.TotalAmount, Currency: s.Order.Currency,
		State: approvalState(s), RequestedAt: s.Approval.RequestedAt, ExpiresAt: s.Approval.ExpiresAt, Decision: newDecisionBody(s.Approval.Decision),
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
	sagas, more, err := a.Sagas.Approvals(ctx, func(s *record.Saga) bool {
		return s.Approval != nil && (in.State == "all" || approvalState(s) == in.State)
	}, in.Limit)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	out := &listApprovalsOutput{}
	out.Body.Items, out.Body.More = make([]approvalBody, 0, len(sagas)), more
	for i := range sagas {
		out.Body.Items = append(out.Body.Items, newApprovalBody(&sagas[i]))
	}
	return out, nil
}

type decideInput struct {
	OrderPath
	Body struct {
		Approved bool   `json:"approved" doc:"Whether the order may be shipped."`
		Approver string `json:"approver" minLength:"1" maxLength:"200" pattern:"[^\\t\\n\\f\\r ]" patternDescription:"a name" doc:"The person who decides." example:"approver@example.com"`
		Reason   string `json:"reason" minLength:"1" maxLength:"500" pattern:"[^\\t\\n\\f\\r ]" patternDescription:"a reason" doc:"Why. The customer reads the reason of a refusal." example:"Known customer, address checked."`
	}
}

func (a API) decide(ctx context.Context, in *decideInput) (*approvalOutput, error) {
	saga, err := a.Sagas.Decide(ctx, in.OrderID, in.Body.Approved, in.Body.Approver, in.Body.Reason)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	return &approvalOutput{newApprovalBody(&saga)}, nil
}
