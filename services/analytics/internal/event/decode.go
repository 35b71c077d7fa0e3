package event

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"waybill/contracts"
	"waybill/platform/jsonscan"
	"waybill/platform/strictjson"
	"waybill/platform/timestamp"
)

// Limits of an event, in bytes.
const (
	// MaxSize is the limit of the whole event's JSON.
	MaxSize = 16 << 10
	// MaxProperties is the limit of the JSON of the properties.
	MaxProperties = MaxSize / 2
	// maxEscape is the length of an escape for a character that can also be written as one byte.
	maxEscape = len(`\u003c`)
	// MaxID is the limit of an id and of an algorithm's name.
	MaxID = 128
)

// maxScores is the number of confidence scores that a recommendation may have.
const maxScores = 1000

// Times of events must lie between these.
var (
	earliest = time.Date(2000, time.January, 1, 0, 0, 0, 0, time.UTC)
	latest   = time.Date(2101, time.January, 1, 0, 0, 0, 0, time.UTC)
)

// Rules configure Decode. The zero value reads events strictly and accepts every time.
type Rules struct {
	// Type is the type in the envelope; empty if the event has its own. If both have one, they must agree.
	Type string
	// Source is the source that the envelope names.
	Source string
	// Delivered means that the event comes from the bus. Its size is then the size of its shortest JSON, and its time may have
	// every form that release 1.0 accepted: the event was accepted before and is not lost because of its form.
	Delivered bool
	// Now is the time of arrival, for the checks of times and currencies. An event more than MaxAhead later is refused, because
	// it would move the windows ahead and make events that are on time late. Zero accepts every time and currency, as a replay of
	// checked events does.
	Now      time.Time
	MaxAhead time.Duration
	// NaiveIsUTC reads a time without a zone as UTC, as clients of the former API send it; otherwise it is a fault.
	NaiveIsUTC bool
	// DeriveID gives an event without event_id an id that is derived from its content, so that a repeated event is still counted
	// once; otherwise it is a fault.
	DeriveID bool
	// ExactNames refuses a member whose name differs from a known one only in case. Other unknown members are ignored.
	ExactNames bool
}

// field is a member of an event's JSON.
type field int

const (
	fieldEventID field = iota
	fieldType
	fieldUser
	fieldSession
	fieldProduct
	fieldAlgorithm
	fieldCurrency
	fieldOrder
	fieldValue
	fieldQuantity
	fieldScores
	fieldTimestamp
	fieldProperties
	fields
)

func (f field) String() string {
	return [fields]string{
		"event_id", "event_type", "user_id", "session_id", "product_id", "algorithm", "currency", "order_id", "value", "quantity",
		"confidence_scores", "timestamp", "properties",
	}[f]
}

func fieldOf(name string) (field, bool) {
	switch name {
	case "event_id":
		return fieldEventID, true
	case "event_type":
		return fieldType, true
	case "user_id":
		return fieldUser, true
	case "session_id":
		return fieldSession, true
	case "product_id":
		return fieldProduct, true
	case "algorithm":
		return fieldAlgorithm, true
	case "currency":
		return fieldCurrency, true
	case "order_id":
		return fieldOrder, true
	case "value":
		return fieldValue, true
	case "quantity":
		return fieldQuantity, true
	case "confidence_scores":
		return fieldScores, true
	case "timestamp":
		return fieldTimestamp, true
	case "properties":
		return fieldProperties, true
	default:
		return 0, false
	}
}

// member is one member of the event as text.
type member struct {
	text  string // empty where there is none or null
	marks jsonscan.Flags
	null  bool
}

// decoding is the state of reading one event.
type decoding struct {
	members    [fields]member
	faults     []Fault
	exactNames bool
	// named: the fault that ended reading is already in the list of faults.
	named bool
}

// Decode reads an event from JSON and checks it. Members that it does not know are ignored. The error is an *Error that
// names every faulty field. The event keeps the text, which is not copied when it is a string.
func Decode[Text ~string | ~[]byte](text Text, rules Rules) (e Event, err error) {
	whole := string(text)
	if !rules.fits(whole, MaxSize) {
		return Event{}, refusal(Fault{"", fmt.Sprintf("must not be larger than %d KiB", MaxSize>>10)})
	}
	err = e.decode(whole, rules)
	return e, err
}

// fits reports whether JSON has at most limit bytes. For a delivered event the shortest form counts, because every component on
// the way may have written the same JSON in more bytes.
func (r *Rules) fits(text string, most int) bool {
	return len(text) <= most || r.Delivered && len(text) <= maxEscape*most && shortest(text) <= most
}

// shortest is about the number of bytes of the JSON text without escapes, and never more than the minimum.
func shortest(text string) int {
	n := 0
	for i := 0; i < len(text); i++ {
		n++
		switch {
		case text[i] != '\\':
		case strings.HasPrefix(text[i:], `\u00`):
			i += maxEscape - 1
		case strings.HasPrefix(text[i:], `\u`):
			n++ // a character has at least two bytes here, and half a surrogate pair stands for two of four
			i += maxEscape - 1
		default:
			i++
		}
	}
	return n
}

// decode fills the event, or clears it.
func (e *Event) decode(text string, rules Rules) error {
	d := decoding{exactNames: rules.ExactNames}
	if !d.scan(text) {
		return refusal(d.faults...)
	}
	e.kind, e.at = d.kind(rules.Type), d.time(rules)
	e.session, e.user = d.id(fieldSession, false), d.id(fieldUser, false)
	e.value, e.properties, e.currency = d.value(), d.properties(rules), contracts.DefaultCurrency
	if e.id = d.id(fieldEventID, !rules.DeriveID); e.id == "" && rules.DeriveID {
		sum := sha256.Sum256([]byte(text))
		e.id = "sha256:" + hex.EncodeToString(sum[:16])
	}
	switch e.kind {
	case Viewed:
		e.product = d.id(fieldProduct, true)
	case Purchased:
		e.product = d.id(fieldProduct, true)
		e.order = d.id(fieldOrder, false)
		d.need(fieldValue)
		e.currency, e.quantity = d.currency(), d.quantity()
		if !rules.Now.IsZero() {
			d.money(e.value, e.currency)
		}
	case Recommended:
		e.product = d.id(fieldProduct, false)
		e.algorithm = d.id(fieldAlgorithm, true)
		e.scores = d.scores()
	}
	if len(d.faults) > 0 {
		*e = Event{}
		return refusal(d.faults...)
	}
	e.source = sourceOf(rules.Source, e.id, e.kind)
	e.key = keyOf(e.source, e.id)
	return nil
}

func refusal(faults ...Fault) error {
	return &Error{Code: CodeInvalid, Text: "The event is not valid.", Faults: faults}
}

func (d *decoding) fault(f field, expectation string) {
	d.faults = append(d.faults, Fault{f.String(), expectation})
}

// need reports a missing member.
func (d *decoding) need(f field) {
	switch one := &d.members[f]; {
	case one.null:
		d.fault(f, "must not be null")
	case one.text == "":
		d.fault(f, "is required")
	}
}

// scan finds the members. It returns false if the text is not one JSON object; then there is exactly one fault.
func (d *decoding) scan(src string) bool {
	pos, ok := jsonscan.SkipByte(src, jsonscan.SkipSpace(src, 0), '{')
	if ok {
		if pos, ok = jsonscan.SkipByte(src, jsonscan.SkipSpace(src, pos), '}'); !ok {
			pos, ok = d.each(src, pos)
		}
		pos = jsonscan.SkipSpace(src, pos)
	}
	if ok && pos == len(src) {
		return true
	}
	if !d.named {
		d.faults = []Fault{notStrict(src, pos)}
	}
	return false
}

// notStrict explains why the text is not one object in strict JSON, from what the scanner found at pos.
func notStrict(src string, pos int) Fault {
	refused, ok := errors.AsType[*strictjson.Error](strictjson.Check([]byte(src)))
	switch {
	case ok && (json.Valid([]byte(src)) || !utf8.ValidString(src)):
		return Fault{refused.Path, refused.Message()}
	case !ok && json.Valid([]byte(src)) && strings.HasPrefix(strings.TrimLeft(src, " \t\r\n"), "{"):
		return Fault{"", "must not be nested more than 32 deep"}
	default:
		return Fault{"", "must be one JSON object, and is none at byte " + strconv.Itoa(pos+1)}
	}
}

// each finds the members from the first on.
func (d *decoding) each(src string, pos int) (end int, ok bool) {
	var seen [fields]bool
	var others jsonscan.NameSet
	for more := true; more; {
		name, at, marks, ok := jsonscan.MemberName(src, pos)
		if !ok {
			return at, false
		}
		f, known := fieldOf(jsonscan.Unquote(name, marks))
		if !known && !d.other(&others, name, marks) {
			return at, false
		}
		if pos, marks, ok = jsonscan.SkipValue(src, at); !ok {
			d.unreadable(src[at:], f, known)
			return pos, false
		}
		if known {
			if seen[f] {
				d.faults, d.named = []Fault{{f.String(), "must appear only once"}}, true
				return pos, false
			}
			seen[f] = true
			if text := src[at:pos]; text == "null" {
				d.members[f].null = true
			} else {
				d.members[f].text, d.members[f].marks = text, marks
			}
		}
		if pos, more, ok = jsonscan.Next(src, pos, '}'); !ok {
			return pos, false
		}
	}
	return pos, true
}

// other records an unknown member; it returns false if its name comes twice.
func (d *decoding) other(others *jsonscan.NameSet, written string, marks jsonscan.Flags) bool {
	if d.exactNames {
		name := jsonscan.Unquote(written, marks)
		for f := range fields {
			if strings.EqualFold(f.String(), name) {
				d.faults = append(d.faults, Fault{name, "is unknown; write it " + f.String()})
			}
		}
	}
	return others.Add(written, marks)
}

// unreadable names the field for the most frequent cause of invalid JSON: some languages write NaN and infinities.
func (d *decoding) unreadable(text string, f field, known bool) {
	for _, word := range []string{"NaN", "Infinity", "-Infinity"} {
		if known && strings.HasPrefix(text, word) {
			d.faults, d.named = []Fault{{f.String(), "must be a finite number"}}, true
		}
	}
}

// text is the string in a member, empty if the member is missing; ok is false if it is not a string.
func (d *decoding) text(f field) (content string, ok bool) {
	one := &d.members[f]
	if one.text == "" {
		return "", true
	}
	if one.text[0] != '"' {
		d.fault(f, "must be text")
		return "", false
	}
	return jsonscan.Unquote(one.text[1:len(one.text)-1], one.marks), true
}

func (d *decoding) id(f field, required bool) string {
	one := &d.members[f]
	if one.text == "" {
		if required {
			d.need(f)
		}
		return ""
	}
	value, ok := d.text(f)
	if ok && one.marks&jsonscan.NotVisibleASCII == 0 && value != "" && len(value) <= MaxID {
		return value
	}
	if ok && (value != "" || required) {
		if problem := idProblem(value); problem != "" {
			d.fault(f, problem)
		}
	}
	return value
}

// idProblem describes what is wrong with an id; empty if it is valid.
func idProblem(id string) string {
	switch {
	case id == "":
		return "must not be empty"
	case len(id) > MaxID:
		return "must not be longer than 128 bytes"
	}
	for _, r := range id {
		if !unicode.IsPrint(r) {
			return "must have printable characters only"
		}
	}
	if strings.TrimSpace(id) == "" {
		return "must not be blank"
	}
	return ""
}

func (d *decoding) kind(envelope string) Type {
	one := &d.members[fieldType]
	if one.text == "" {
		if envelope == "" || one.null {
			d.need(fieldType)
			return 0
		}
		kind := typeOf(envelope)
		if kind == 0 {
			d.fault(fieldType, expectedTypes)
		}
		return kind
	}
	name, ok := d.text(fieldType)
	kind := typeOf(name)
	switch {
	case !ok: // reported
	case kind == 0:
		d.fault(fieldType, expectedTypes)
	case envelope != "" && typeOf(envelope) != kind:
		d.fault(fieldType, "must be that of the envelope")
	}
	return kind
}

const expectedTypes = "must be one of " + contracts.TypeProductViewed + ", " + contracts.TypeProductPurchased + ", " +
	contracts.TypeRecommendationGenerated

// naive is RFC 3339 without a zone, with or without a fraction.
const naive = "2006-01-02T15:04:05"

func (d *decoding) time(rules Rules) time.Time {
	text, ok := d.text(fieldTimestamp)
	if d.need(fieldTimestamp); !ok || d.members[fieldTimestamp].text == "" {
		return time.Time{} // reported
	}
	at, err := timestamp.Parse(text)
	if err != nil {
		var otherwise error
		if at, otherwise = time.Parse(time.RFC3339, text); otherwise != nil {
			if at, otherwise = time.Parse(naive, text); otherwise == nil && !rules.NaiveIsUTC {
				d.fault(fieldTimestamp, "must name its zone, such as 2026-03-14T09:26:53Z or 2026-03-14T10:26:53+01:00")
				return time.Time{}
			}
		} else if !rules.Delivered {
			otherwise = err
		}
		if otherwise != nil {
			d.fault(fieldTimestamp, err.Error())
			return time.Time{}
		}
	}
	switch {
	case at.Before(earliest):
		d.fault(fieldTimestamp, "must be a time after the year 2000")
	case !rules.Now.IsZero() && at.Sub(rules.Now) > rules.MaxAhead:
		d.fault(fieldTimestamp, "must not be more than "+rules.MaxAhead.String()+" in the future")
	case !at.Before(latest):
		d.fault(fieldTimestamp, "must be a time before the year 2101")
	}
	return at.UTC()
}

func (d *decoding) value() contracts.Amount {
	raw := d.members[fieldValue].text
	if raw == "" {
		return 0
	}
	if c := raw[0]; c != '-' && (c < '0' || c > '9') {
		d.fault(fieldValue, "must be a number")
		return 0
	}
	value, err := contracts.ParseAmount(jsonscan.NormalizeNumber(raw))
	switch {
	case err != nil:
		d.fault(fieldValue, contracts.ErrAmount.Error())
	case value < 0:
		d.fault(fieldValue, "must not be negative")
	case value > contracts.MaxAmount:
		d.fault(fieldValue, "must not be more than "+contracts.MaxAmount.String())
	}
	return value
}

// money checks the amount of a purchase in its currency. A currency that is not a string has been reported already.
func (d *decoding) money(value contracts.Amount, currency string) {
	if _, known := contracts.CurrencyPlaces(currency); !known {
		if !slices.ContainsFunc(d.faults, func(f Fault) bool { return f.Path == fieldCurrency.String() }) {
			d.fault(fieldCurrency, "must be a currency that ISO 4217 lists with minor units, such as USD, JPY or KWD")
		}
		return
	}
	if !value.Fits(currency) {
		d.fault(fieldValue, contracts.PlacesRule(currency))
	}
}

func (d *decoding) quantity() int {
	if d.members[fieldQuantity].text == "" {
		return 0
	}
	quantity, err := strconv.Atoi(jsonscan.NormalizeNumber(d.members[fieldQuantity].text))
	if err != nil || quantity < 1 || quantity > 1_000_000 {
		d.fault(fieldQuantity, "must be a whole number from 1 to 1000000")
	}
	return quantity
}

func (d *decoding) currency() string {
	code, ok := d.text(fieldCurrency)
	if code == "" || !ok {
		return contracts.DefaultCurrency
	}
	if len(code) != 3 || strings.ContainsFunc(code, func(r rune) bool { return r < 'A' || r > 'Z' }) {
		d.fault(fieldCurrency, "must be an ISO 4217 code, such as USD")
	}
	return code
}

func (d *decoding) scores() []float64 {
	src := d.members[fieldScores].text
	if d.need(fieldScores); src == "" {
		return nil
	}
	if src[0] != '[' {
		d.fault(fieldScores, "must be a list of numbers")
		return nil
	}
	pos, ended := jsonscan.SkipByte(src, jsonscan.SkipSpace(src, 1), ']')
	var scores []float64
	for more := !ended; more; {
		start := pos
		pos, _, _ = jsonscan.SkipValue(src, start) // scan has been over it
		score, err := strconv.ParseFloat(src[start:pos], 64)
		if c := src[start]; err != nil || c != '-' && (c < '0' || c > '9') || score < 0 || score > 1 {
			d.faults = append(d.faults, Fault{fmt.Sprintf("%s[%d]", fieldScores, len(scores)), "must be a number from 0 to 1"})
			return nil
		}
		if scores = append(scores, score); len(scores) > maxScores {
			d.fault(fieldScores, "must not have more than 1000 elements")
			return nil
		}
		pos, more, _ = jsonscan.Next(src, pos, ']')
	}
	return scores
}

func (d *decoding) properties(rules Rules) string {
	raw := d.members[fieldProperties].text
	switch {
	case raw == "":
	case raw[0] != '{':
		d.fault(fieldProperties, "must be an object")
	case !rules.fits(raw, MaxProperties):
		d.fault(fieldProperties, fmt.Sprintf("must not be larger than %d KiB", MaxProperties>>10))
	}
	return raw
}
