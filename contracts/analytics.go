package contracts

import "time"

// Event types of the analytics-events topic.
const (
	TypeProductViewed           = "analytics.product_viewed"
	TypeProductPurchased        = "analytics.product_purchased"
	TypeRecommendationGenerated = "analytics.recommendation_generated"
)

// AliasProductViewed is another name of TypeProductViewed that some clients send. Services accept it and never publish it.
const AliasProductViewed = "Analytics.ProductViewed"

// TypeAnomalyDetected is the event type of the alerts topic.
const TypeAnomalyDetected = "Anomaly.Detected"

// ProductViewed says that a customer or visitor viewed a product.
type ProductViewed struct {
	// EventID identifies the fact. A retry must use the same id.
	EventID   string `json:"event_id"`
	UserID    string `json:"user_id,omitempty"`
	SessionID string `json:"session_id,omitempty"`
	ProductID string `json:"product_id"`
	Value     Amount `json:"value,omitempty"`
	// Timestamp is when it happened.
	Timestamp time.Time `json:"timestamp"`
	// Properties hold additional data of the client.
	Properties map[string]any `json:"properties,omitempty"`
}

// EventType is analytics.product_viewed.
func (ProductViewed) EventType() string { return TypeProductViewed }

// Subject is sessions/<session id>, or products/<product id> without a session.
func (e ProductViewed) Subject() string { return activitySubject(e.SessionID, e.ProductID) }

// Key is the session, whose events stay in order, or the product without a session.
func (e ProductViewed) Key() string { return activityKey(e.SessionID, e.ProductID) }

// ProductPurchased says that a customer bought a product.
type ProductPurchased struct {
	// EventID identifies the fact. A retry must use the same id.
	EventID   string `json:"event_id"`
	UserID    string `json:"user_id,omitempty"`
	SessionID string `json:"session_id,omitempty"`
	ProductID string `json:"product_id"`
	// Value is the total price of all units.
	Value    Amount `json:"value"`
	Currency string `json:"currency,omitempty"`
	Quantity int    `json:"quantity,omitempty"`
	OrderID  string `json:"order_id,omitempty"`
	// Timestamp is when it happened.
	Timestamp time.Time `json:"timestamp"`
	// Properties hold additional data of the client.
	Properties map[string]any `json:"properties,omitempty"`
}

// EventType is analytics.product_purchased.
func (ProductPurchased) EventType() string { return TypeProductPurchased }

// Subject is sessions/<session id>, or products/<product id> without a session.
func (e ProductPurchased) Subject() string { return activitySubject(e.SessionID, e.ProductID) }

// Key is the session, whose events stay in order, or the product without a session.
func (e ProductPurchased) Key() string { return activityKey(e.SessionID, e.ProductID) }

// RecommendationGenerated says that an algorithm recommended products to a customer or visitor.
type RecommendationGenerated struct {
	// EventID identifies the fact. A retry must use the same id.
	EventID   string `json:"event_id"`
	UserID    string `json:"user_id,omitempty"`
	SessionID string `json:"session_id,omitempty"`
	ProductID string `json:"product_id,omitempty"`
	Algorithm string `json:"algorithm"`
	// ConfidenceScores are the algorithm's confidence in each recommended product, from 0 to 1.
	ConfidenceScores []float64 `json:"confidence_scores"`
	// Timestamp is when it happened.
	Timestamp time.Time `json:"timestamp"`
	// Properties hold additional data of the client.
	Properties map[string]any `json:"properties,omitempty"`
}

// EventType is analytics.recommendation_generated.
func (RecommendationGenerated) EventType() string { return TypeRecommendationGenerated }

// Subject is sessions/<session id>, or algorithms/<algorithm> without a session.
func (e RecommendationGenerated) Subject() string {
	if e.SessionID == "" {
		return "algorithms/" + e.Algorithm
	}
	return "sessions/" + e.SessionID
}

// Key is the session, whose events stay in order, or the algorithm without a session.
func (e RecommendationGenerated) Key() string { return activityKey(e.SessionID, e.Algorithm) }

func activitySubject(session, product string) string {
	if session == "" {
		return "products/" + product
	}
	return "sessions/" + session
}

func activityKey(session, other string) string {
	if session == "" {
		return other
	}
	return session
}

// Kinds of anomalies.
const (
	AnomalyUnusualPurchase = "unusual_purchase_amount"
	AnomalyViewSpike       = "view_spike"
)

// Anomalies lists every kind of anomaly.
func Anomalies() []string { return []string{AnomalyUnusualPurchase, AnomalyViewSpike} }

// AnomalyDetected says that the views or purchases of a product deviate from its history.
type AnomalyDetected struct {
	// AnomalyID is derived from the finding, so detecting it again gives the same id.
	AnomalyID string `json:"anomaly_id"`
	Kind      string `json:"kind"`
	ProductID string `json:"product_id"`
	// Expected is the mean of the history: an amount of money for a purchase, views per minute for a spike.
	Expected float64 `json:"expected"`
	// Observed is the actual value.
	Observed float64 `json:"observed"`
	// Deviation is the standard deviation of the history.
	Deviation float64 `json:"deviation"`
	// Score is the difference of Observed and Expected in standard deviations.
	Score float64 `json:"score"`
	// Message is a sentence for people.
	Message string `json:"message"`
	// EventID is the event that triggered the detection.
	EventID string `json:"event_id,omitempty"`
	// OccurredAt is the time of that event.
	OccurredAt time.Time `json:"occurred_at"`
}

// EventType is Anomaly.Detected.
func (AnomalyDetected) EventType() string { return TypeAnomalyDetected }

// Subject is products/<product id>.
func (e AnomalyDetected) Subject() string { return "products/" + e.ProductID }

// Key is the product, whose anomalies stay in order.
func (e AnomalyDetected) Key() string { return e.ProductID }
