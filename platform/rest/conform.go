package rest

import (
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"waybill/platform/jsonscan"
)

// This file makes the API do what its OpenAPI description says, where huma alone would differ.

// exact decodes request bodies as JSON Schema defines: an integer may be written as 10.0 or 1e1, and null differs from a missing
// member.
func exact(format huma.Format) huma.Format {
	return huma.Format{Marshal: format.Marshal, Unmarshal: func(data []byte, v any) error {
		// huma reads a body twice: into an any, which it validates, and then into the operation's own type.
		if document, ok := v.(*any); ok {
			err := format.Unmarshal(data, v)
			*document = markNull(*document)
			return err
		}
		return format.Unmarshal(jsonscan.NormalizeNumbers(data), v)
	}}
}

// null replaces a JSON null in a document for validation. Huma skips nil, but no schema allows the type null.
type null struct{}

func markNull(value any) any {
	switch v := value.(type) {
	case nil:
		return null{}
	case map[string]any:
		for name, member := range v {
			v[name] = markNull(member)
		}
	case []any:
		for i, element := range v {
			v[i] = markNull(element)
		}
	}
	return value
}

// checkQuery rejects empty query parameters. Huma treats them as missing.
func checkQuery(ctx huma.Context, next func(huma.Context)) {
	requestURL := ctx.URL()
	query, err := url.ParseQuery(requestURL.RawQuery)
	if err != nil {
		r, w := humachi.Unwrap(ctx)
		Write(w, r, &Problem{Status: http.StatusBadRequest, Code: codeOf(http.StatusBadRequest), Detail: "The query cannot be read."})
		return
	}
	var empty []Fault
	for _, parameter := range ctx.Operation().Parameters {
		if parameter.In == "query" && slices.Contains(query[parameter.Name], "") {
			empty = append(empty, Fault{Location: "query." + parameter.Name, Message: "must not be empty; leave it out instead"})
		}
	}
	if len(empty) > 0 {
		r, w := humachi.Unwrap(ctx)
		Write(w, r, &Problem{Status: http.StatusUnprocessableEntity, Code: codeOf(http.StatusUnprocessableEntity), Detail: "validation failed", Errors: empty})
		return
	}
	next(ctx)
}

// documentRequests adds to the operation's description what applies to all operations: parameters must not be empty, and the
// problems that every such request can return.
func documentRequests(doc *huma.OpenAPI, op *huma.Operation) {
	for _, parameter := range op.Parameters {
		schema := parameter.Schema
		if schema != nil && schema.Type == huma.TypeString && parameter.In != "header" && schema.Pattern == "" && len(schema.Enum) == 0 && schema.Format == "" && schema.Extensions == nil {
			// This is for the description only: readable rejects other values before huma reads them.
			schema.Extensions = map[string]any{"pattern": withoutControls}
		}
		if parameter.In != "query" && !slices.Contains(notEmpty, parameter.Name) || schema == nil || schema.Type != huma.TypeString || len(schema.Enum) > 0 || schema.MinLength != nil {
			continue
		}
		schema.MinLength = new(1)
		schema.PrecomputeMessages()
	}
	statuses := []int{http.StatusInternalServerError}
	if len(op.Parameters) > 0 {
		statuses = append(statuses, http.StatusBadRequest, http.StatusUnprocessableEntity)
	}
	if op.RequestBody != nil {
		statuses = append(statuses, http.StatusBadRequest, http.StatusRequestTimeout, http.StatusRequestEntityTooLarge,
			http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity)
	}
	delete(op.Responses, "default") // huma's way to say that nothing is documented
	for _, status := range statuses {
		DocumentProblem(doc, op, status)
	}
	for status, response := range op.Responses {
		if status == strconv.Itoa(http.StatusServiceUnavailable) {
			documentHeader(response, "Retry-After", &huma.Schema{Type: huma.TypeInteger, Minimum: new(float64(1))}, "After how many seconds the request may succeed.")
		}
	}
}

// withoutControls is a regular expression for what readable accepts in paths and queries.
const withoutControls = `^[^\x00-\x1f\x7f-\x9f]+$`

// DocumentProblem adds a problem to the operation's described responses, unless one with that status exists.
func DocumentProblem(doc *huma.OpenAPI, op *huma.Operation, status int) {
	name := strconv.Itoa(status)
	if op.Responses[name] != nil {
		return
	}
	if op.Responses == nil {
		op.Responses = map[string]*huma.Response{}
	}
	op.Responses[name] = &huma.Response{Description: http.StatusText(status), Content: map[string]*huma.MediaType{
		problemType: {Schema: doc.Components.Schemas.Schema(reflect.TypeFor[Problem](), true, "Problem")},
	}}
}

func documentHeader(response *huma.Response, name string, schema *huma.Schema, description string) {
	if response.Headers == nil {
		response.Headers = map[string]*huma.Param{}
	}
	if response.Headers[name] == nil {
		response.Headers[name] = &huma.Param{Schema: schema, Description: description}
	}
}
