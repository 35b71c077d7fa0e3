package api

import (
	"maps"

	"github.com/danielgtaylor/huma/v2"

	"waybill/contracts"
	"waybill/services/analytics/internal/event"
)

// idSchema describes what event.Decode accepts as an id. JSON Schema counts characters, not bytes.
func idSchema(required bool, doc, example string) *huma.Schema {
	s := &huma.Schema{Type: huma.TypeString, MaxLength: new(event.MaxID), Description: doc + " At most 128 bytes of printable characters.", Nullable: !required}
	if required {
		s.MinLength = new(1)
	}
	if example != "" {
		s.Examples = []any{example}
	}
	return s
}

// eventSchema describes an event to clients; event.Decode reads it. Members that the type of the event does not define are
// ignored.
func eventSchema(schemas huma.Registry, lenient bool) *huma.Schema {
	prefix := ""
	if lenient {
		prefix = "Former"
	}
	none, whole := float64(0), float64(1)
	variant := func(name string, types []any, needs []string, more map[string]*huma.Schema) *huma.Schema {
		timestamp := &huma.Schema{Type: huma.TypeString, Format: "date-time", Description: "When it happened, with a zone.", Examples: []any{"2026-03-14T09:26:53Z"}}
		required := append([]string{"event_id", "event_type", "timestamp"}, needs...)
		if lenient {
			required = required[1:]
			timestamp.Format, timestamp.Description = "", "When it happened. Without a zone it is UTC."
			timestamp.Pattern = `^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})?$`
		}
		s := &huma.Schema{Type: huma.TypeObject, AdditionalProperties: true, Required: required, Properties: map[string]*huma.Schema{
			"event_id":   idSchema(!lenient, "Names the fact; an event that is sent again has the same one. It is compared with those of events sent to this API only.", "EVT-1001"),
			"event_type": {Type: huma.TypeString, Enum: types},
			"timestamp":  timestamp,
			"user_id":    idSchema(false, "Who did it.", "CUST-123"),
			"session_id": idSchema(false, "Events of a session keep their order.", "SESSION-1"),
			"value": {
				Type: huma.TypeNumber, Minimum: &none, Nullable: true, Examples: []any{49.99}, Extensions: map[string]any{"maximum": contracts.MaxAmount},
				Description: "An amount of money.",
			},
			"properties": {Type: huma.TypeObject, AdditionalProperties: true, Nullable: true, Description: "Whatever else is to be kept, up to 8 KiB."},
		}}
		maps.Copy(s.Properties, more)
		schemas.Map()[prefix+name] = s
		return &huma.Schema{Ref: "#/components/schemas/" + prefix + name}
	}
	product := idSchema(true, "The product.", "PROD-001")
	return &huma.Schema{OneOf: []*huma.Schema{
		variant("ProductViewed", []any{contracts.TypeProductViewed, "Analytics.ProductViewed"}, []string{"product_id"}, map[string]*huma.Schema{"product_id": product}),
		variant("ProductPurchased", []any{contracts.TypeProductPurchased}, []string{"product_id", "value"}, map[string]*huma.Schema{
			"product_id": product,
			"order_id":   idSchema(false, "The order.", "ORD-1001"),
			"value": {
				Type: huma.TypeNumber, Minimum: &none, Examples: []any{49.99}, Extensions: map[string]any{"maximum": contracts.MaxAmount},
				Description: "What was paid, all pieces together, with at most as many decimal places as the currency has.",
			},
			"currency": {Type: huma.TypeString, Pattern: "^([A-Z]{3})?$", Nullable: true, Examples: []any{contracts.DefaultCurrency}, Description: "ISO 4217 code; USD when not given."},
			"quantity": {Type: huma.TypeInteger, Minimum: &whole, Maximum: new(float64(1_000_000)), Nullable: true},
		}),
		variant("RecommendationGenerated", []any{contracts.TypeRecommendationGenerated}, []string{"algorithm", "confidence_scores"}, map[string]*huma.Schema{
			"product_id": idSchema(false, "The product.", "PROD-001"),
			"algorithm":  idSchema(true, "What made the recommendation.", "collaborative"),
			"confidence_scores": {
				Type: huma.TypeArray, MaxItems: new(1000), Items: &huma.Schema{Type: huma.TypeNumber, Minimum: &none, Maximum: &whole},
			},
		}),
	}}
}

// metricPattern is a regular expression for the names that known accepts.
const metricPattern = `^(total_views|total_purchases|total_revenue|(views|purchases|revenue|conversion_rate|recommendation_confidence)_[^\x00-\x1f\x7f-\x9f]+|session_[^\x00-\x1f\x7f-\x9f]+_views)$`

// metricInList is metricPattern for a list in which commas separate the names.
const metricInList = `^(total_views|total_purchases|total_revenue|(views|purchases|revenue|conversion_rate|recommendation_confidence)_[^,\x00-\x1f\x7f-\x9f]+|session_[^,\x00-\x1f\x7f-\x9f]+_views)$`

// describe adds the operations' own checks to their descriptions.
func describe(doc *huma.OpenAPI) {
	for _, path := range []string{"/v1/analytics/metrics", "/v1/analytics/series", "/v1/analytics/live"} {
		for _, parameter := range doc.Paths[path].Get.Parameters {
			switch parameter.Name {
			case "name":
				parameter.Schema.Extensions = map[string]any{"pattern": metricPattern}
			case "names":
				parameter.Schema.MinItems = new(1)
				parameter.Schema.Items = &huma.Schema{Type: huma.TypeString, Extensions: map[string]any{"pattern": metricInList}}
			}
		}
	}
	describeStream(doc)
}

// describeStream describes one event of the stream, as a client reads it: its data is text that holds JSON.
func describeStream(doc *huma.OpenAPI) {
	media := doc.Paths["/v1/analytics/live"].Get.Responses["200"].Content["text/event-stream"]
	one := func(name string, data *huma.Schema) *huma.Schema {
		return &huma.Schema{
			Title: "Event " + name, Type: huma.TypeObject, Required: []string{"event", "data"}, Properties: map[string]*huma.Schema{
				"event": {Type: huma.TypeString, Enum: []any{name}},
				"data":  {Type: huma.TypeString, Extensions: map[string]any{"contentMediaType": "application/json", "contentSchema": data}},
			},
		}
	}
	media.Schema = &huma.Schema{Description: "One event of the stream.", OneOf: []*huma.Schema{
		one("metrics", &huma.Schema{Ref: "#/components/schemas/LiveMetrics"}),
		one("anomaly", &huma.Schema{Ref: "#/components/schemas/AnomalyView"}),
	}}
}
