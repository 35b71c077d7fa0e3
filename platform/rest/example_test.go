package rest_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"

	"github.com/danielgtaylor/huma/v2"

	"waybill/platform/rest"
)

// A handler returns its output or a Problem. OpenAPI is at /openapi.json and a docs page at /docs.
func ExampleNew() {
	router, api := rest.New(rest.Info{Title: "Products", Version: "1", Description: "Products."}, slog.New(slog.DiscardHandler))
	type product struct {
		ID string `json:"id"`
	}
	huma.Register(api, huma.Operation{OperationID: "get-product", Method: http.MethodGet, Path: "/v1/products/{id}"},
		func(_ context.Context, in *struct {
			ID string `path:"id"`
		},
		) (*struct{ Body product }, error) {
			if in.ID != "PROD-001" {
				return nil, &rest.Problem{Status: http.StatusNotFound, Code: "no_such_product", Detail: "There is no product " + in.ID + "."}
			}
			return &struct{ Body product }{product{ID: in.ID}}, nil
		})

	for _, path := range []string{"/v1/products/PROD-001", "/v1/products/PROD-002"} {
		w := httptest.NewRecorder()
		router.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, http.NoBody))
		fmt.Println(w.Code, w.Header().Get("Content-Type"))
	}
	// Output:
	// 200 application/json
	// 404 application/problem+json
}
