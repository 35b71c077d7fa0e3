package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"waybill/platform/rest"
	"waybill/services/fulfillment/internal/inventory"
)

// ProductPath is exported because huma reads embedded parameters only from exported types.
type ProductPath struct {
	ProductID string `path:"product_id" maxLength:"64" pattern:"^[A-Za-z0-9][A-Za-z0-9._-]*$" patternDescription:"letters, digits, dot, underscore, hyphen" example:"PROD-001"`
}

type getStockInput struct {
	ProductPath

	IfNoneMatch string `header:"If-None-Match" doc:"ETags that the client knows. The answer is 304 if the stock has one of them."`
}

type setStockInput struct {
	ProductPath
	rest.Preconditions

	Body struct {
		OnHand int `json:"on_hand" minimum:"0" maximum:"1000000000" doc:"Pieces in the warehouse, including those that orders hold." example:"100"`
	}
}

// condition reports whether the stock meets the request's preconditions.
func (in *setStockInput) condition(s *inventory.Stock) bool {
	if s.ProductID == "" {
		return in.Hold("")
	}
	return in.Hold(s.ETag())
}

type stockOutput struct {
	Status int
	ETag   string `header:"ETag" doc:"The version of the stock, for If-Match."`
	Body   *StockBody
}

// StockBody is exported because huma describes embedded members only of exported types.
type StockBody struct {
	ProductID string `json:"product_id" example:"PROD-001"`
	OnHand    int    `json:"on_hand" doc:"Pieces in the warehouse."`
	Reserved  int    `json:"reserved" doc:"Pieces that orders hold."`
	Available int    `json:"available" doc:"Pieces that can be sold: on_hand minus reserved."`
	Shipped   int    `json:"shipped" doc:"Pieces that left the warehouse."`
}

func newStockOutput(s inventory.Stock) *stockOutput {
	return &stockOutput{Status: http.StatusOK, ETag: s.ETag(), Body: &StockBody{
		ProductID: s.ProductID, OnHand: s.OnHand, Reserved: s.Reserved(), Available: s.Available(), Shipped: s.Shipped,
	}}
}

func (a API) getStock(ctx context.Context, in *getStockInput) (*stockOutput, error) {
	s, err := a.Inventory.Get(ctx, in.ProductID)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	if rest.NotModified(in.IfNoneMatch, s.ETag()) {
		return &stockOutput{Status: http.StatusNotModified, ETag: s.ETag()}, nil
	}
	return newStockOutput(s), nil
}

func (a API) setStock(ctx context.Context, in *setStockInput) (*stockOutput, error) {
	s, err := a.Inventory.Set(ctx, in.ProductID, in.Body.OnHand, in.condition)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	return newStockOutput(s), nil
}

type adjustStockInput struct {
	ProductPath

	IdempotencyKey string `header:"Idempotency-Key" required:"true" minLength:"1" maxLength:"255" pattern:"^[!-~]+$" patternDescription:"visible ASCII characters" doc:"1 to 255 visible ASCII characters that the client chooses. A request that repeats a key of this product within 24 hours gets the first answer and changes nothing."`
	Body           struct {
		Delta  int    `json:"delta" minimum:"-1000000000" maximum:"1000000000" doc:"The change of on_hand in pieces; not 0." example:"-3"`
		Reason string `json:"reason" minLength:"1" maxLength:"200" pattern:"[^\\t\\n\\f\\r ]" patternDescription:"a reason" doc:"Why, for people who read it." example:"Three were damaged."`
	}
}

// Resolve checks what a schema tag cannot express.
func (in *adjustStockInput) Resolve(huma.Context) []error {
	if in.Body.Delta == 0 {
		return []error{&huma.ErrorDetail{Location: "body.delta", Message: "must not be 0", Value: 0}}
	}
	return nil
}

type adjustStockOutput struct{ Body adjustmentBody }

type adjustmentBody struct {
	StockBody

	Delta     int       `json:"delta" doc:"The change of on_hand in pieces."`
	Reason    string    `json:"reason"`
	AppliedAt time.Time `json:"applied_at" doc:"When the adjustment was first applied. The other members show the stock at this time."`
}

func (a API) adjustStock(ctx context.Context, in *adjustStockInput) (*adjustStockOutput, error) {
	done, err := a.Inventory.Adjust(ctx, in.ProductID, in.IdempotencyKey, in.Body.Delta, in.Body.Reason)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	return &adjustStockOutput{adjustmentBody{
		StockBody: StockBody{in.ProductID, done.OnHand, done.Reserved, done.OnHand - done.Reserved, done.Shipped},
		Delta:     done.Delta, Reason: done.Reason, AppliedAt: done.At.UTC(),
	}}, nil
}
