package api

import (
	"context"

	"waybill/services/fulfillment/internal/inventory"
)

// ProductPath is exported because huma reads embedded parameters only from exported types.
type ProductPath struct {
	ProductID string `path:"product_id" maxLength:"64" pattern:"^[A-Za-z0-9][A-Za-z0-9._-]*$" patternDescription:"letters, digits, dot, underscore, hyphen" example:"PROD-001"`
}

type setStockInput struct {
	ProductPath
	Body struct {
		OnHand int `json:"on_hand" minimum:"0" maximum:"1000000000" doc:"Pieces in the warehouse, those that orders hold included." example:"100"`
	}
}

type stockOutput struct{ Body stockBody }

type stockBody struct {
	ProductID string `json:"product_id" example:"PROD-001"`
	OnHand    int    `json:"on_hand" doc:"Pieces in the warehouse."`
	Reserved  int    `json:"reserved" doc:"Pieces of them that orders hold."`
	Available int    `json:"available" doc:"Pieces that can still be sold: on_hand less reserved."`
	Shipped   int    `json:"shipped" doc:"Pieces that left the warehouse."`
}

func shown(s inventory.Stock) *stockOutput {
	return &stockOutput{Body: stockBody{
		ProductID: s.ProductID, OnHand: s.OnHand, Reserved: s.Reserved(), Available: s.Available(), Shipped: s.Shipped,
	}}
}

func (a API) getStock(ctx context.Context, in *ProductPath) (*stockOutput, error) {
	s, err := a.Inventory.Get(ctx, in.ProductID)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	return shown(s), nil
}

func (a API) setStock(ctx context.Context, in *setStockInput) (*stockOutput, error) {
	s, err := a.Inventory.Set(ctx, in.ProductID, in.Body.OnHand)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	return shown(s), nil
}
