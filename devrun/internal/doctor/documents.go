package doctor

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"waybill/contracts"
)

// The stored documents, as far as they are compared.
type (
	orderDoc struct {
		Content     contracts.Order `json:"order"`
		Status      string          `json:"status"`
		CreatedAt   time.Time       `json:"created_at"`
		ProcessedAt time.Time       `json:"processed_at"`
		UpdatedAt   time.Time       `json:"updated_at"`
	}
	sagaDoc struct {
		Order        contracts.Order `json:"order"`
		StartedAt    time.Time       `json:"started_at"`
		Cancellation *struct {
			Late bool `json:"late"`
		} `json:"cancellation"`
		Approval *struct {
			ExpiresAt time.Time `json:"expires_at"`
			Decision  *struct {
				Approved bool   `json:"approved"`
				Code     string `json:"code"`
			} `json:"decision"`
		} `json:"approval"`
		Halt *struct {
			Round int `json:"round"`
		} `json:"halt"`
		Repairs []json.RawMessage `json:"repairs"`
		EndedAt time.Time         `json:"ended_at"`
		Outcome string            `json:"outcome"`
	}
	paymentDoc struct {
		OrderID string        `json:"order_id"`
		Charges []transaction `json:"charges"`
		Refunds []transaction `json:"refunds"`
	}
	transaction struct {
		ID     string           `json:"transaction_id"`
		Amount contracts.Amount `json:"amount"`
	}
	shipmentDoc struct {
		OrderID   string      `json:"order_id"`
		Booked    []parcelDoc `json:"booked"`
		Cancelled bool        `json:"cancelled"`
	}
	parcelDoc struct {
		Shipment struct {
			TrackingNumber string `json:"tracking_number"`
		} `json:"shipment"`
	}
	reservationDoc struct {
		OrderID string         `json:"order_id"`
		State   string         `json:"state"`
		Lines   map[string]int `json:"lines"`
		Derives bool           `json:"derives"`
		Was     string         `json:"was"`
	}
	stockDoc struct {
		ProductID string         `json:"product_id"`
		OnHand    int            `json:"on_hand"`
		Shipped   int            `json:"shipped"`
		Held      map[string]int `json:"held"`
		Moved     map[string]int `json:"moved"`
	}
	messagesDoc struct {
		Messages []messageDoc `json:"messages"`
	}
	messageDoc struct {
		ID         string `json:"id"`
		OrderID    string `json:"order_id"`
		CustomerID string `json:"customer_id"`
		State      string `json:"state"`
		Round      int    `json:"round"`
	}
	listDoc struct { // a part of a customer's list
		IDs []string `json:"ids"`
	}
	backlogDirectory struct {
		Pages []string `json:"pages"`
	}
	backlogPage struct {
		Entries []struct {
			ID string `json:"id"`
		} `json:"entries"`
	}
	lettersPage struct {
		Items []struct {
			Open int `json:"open"`
		} `json:"items"`
	}
)

// Statuses, outcomes and states that the stored documents hold.
const (
	statusReceived         = "received"
	statusAwaitingApproval = "awaiting_approval"
	statusFulfilled        = "fulfilled"
	statusFailed           = "fulfillment_failed"
	statusCancelled        = "cancelled"
	statusNeedsAttention   = "needs_attention"

	outcomeCompleted = "completed"
	outcomeFailed    = "failed"
	outcomeCancelled = "cancelled"

	reserved   = "reserved"
	refused    = "refused"
	shipped    = "shipped"
	unshipping = "unshipping"
	releasing  = "releasing"
	released   = "released"

	messageWaiting   = "waiting_for_address"
	messageDelivered = "delivered"
	messageFailed    = "failed"
)

func (o *orderDoc) ended() bool {
	return slices.Contains([]string{statusFulfilled, statusFailed, statusCancelled}, o.Status)
}

// needsSaga reports whether fulfilment was asked to fulfil the order.
func (o *orderDoc) needsSaga() bool {
	return o.Status != statusReceived && (o.Status != statusCancelled || !o.ProcessedAt.IsZero())
}

func (s *sagaDoc) started() bool { return !s.StartedAt.IsZero() }
func (s *sagaDoc) ended() bool   { return !s.EndedAt.IsZero() }

func (s *sagaDoc) cancelled() bool { return s.Cancellation != nil && !s.Cancellation.Late }

func (s *sagaDoc) awaitsApproval() bool {
	return !s.ended() && !s.cancelled() && s.Approval != nil && s.Approval.Decision == nil
}

func (s *sagaDoc) halted() bool { return !s.ended() && s.Halt != nil && len(s.Repairs) < s.Halt.Round }

// state is the saga's state in one word.
func (s *sagaDoc) state() string {
	switch {
	case s.ended():
		return "ended as " + s.Outcome
	case s.halted():
		return "needs attention"
	case s.awaitsApproval():
		return "awaits an approval"
	default:
		return "running"
	}
}

// status is the order's status that follows from the saga's outcome.
func (s *sagaDoc) status() string {
	return map[string]string{outcomeCompleted: statusFulfilled, outcomeFailed: statusFailed, outcomeCancelled: statusCancelled}[s.Outcome]
}

// template is the message that the customer gets.
func (s *sagaDoc) template() string {
	return map[string]string{
		outcomeCompleted: contracts.TemplateOrderShipped, outcomeFailed: contracts.TemplateOrderFailed, outcomeCancelled: contracts.TemplateOrderCancelled,
	}[s.Outcome]
}

func sum(all []transaction) (total contracts.Amount) {
	for _, t := range all {
		total += t.Amount
	}
	return total
}

// underWay reports whether the carrier has a parcel of the order.
func (s *shipmentDoc) underWay() bool { return s != nil && len(s.Booked) > 0 && !s.Cancelled }

// ofOrder reports whether a saga requested the message for its order; other messages can name any order.
func (m *messageDoc) ofOrder(id string) bool {
	rest, own := strings.CutPrefix(m.ID, id+":")
	template, channel, _ := strings.Cut(rest, ":")
	return own && slices.Contains(contracts.Templates(), template) && slices.Contains(contracts.Channels(), channel)
}

func (m *messageDoc) final() bool { return m.State == messageDelivered || m.State == messageFailed }
