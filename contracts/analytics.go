package contracts

import "time"

// Event types of the analytics-events topic.
const (
	TypeProductViewed           = "analytics.product_viewed"
	TypeProductPurchased        = "analytics.product_purchased"
	TypeRecommendationGenerated = "analytics.recommendation_generated"
)

// AliasProductViewed is another name of TypeProductViewed, which some clients send. It is understood and never written.
const AliasProductViewed = "Analytics.ProductViewed"

// TypeAnomalyDetected is the event type of the alerts topic.
const TypeAnomalyDetected = "Anomaly.Detected"

// ProductViewed says that somebody looked at a product.
type ProductViewed struct {
	// EventID names the fact; whoever tells it again uses the same one.
	EventID   string `json:"event_id"`
	UserID    string `json:"user_id,omitempty"`
	SessionID string `json:"session_id,omitempty"`
	ProductID string `json:"product_id"`
	Value     Amount `json:"value,omitempty"`
	// Timestamp is when it happened.
	Timestamp time.Time `json:"timestamp"`
	// Properties hold whatever else the client wants to keep with the event.
	Properties map[string]any `json:"properties,omitempty"`
}

// EventType is analytics.product_viewed.
func (ProductViewed) EventType() string { return TypeProductViewed }

// Subject is sessions/<session id>, or products/<product id> where there is no session.
func (e ProductViewed) Subject() string { return activitySubject(e.SessionID, e.ProductID) }

// Key is the session, whose events stay in order; without one it is the product.
func (e ProductViewed) Key() string { return activityKey(e.SessionID, e.ProductID) }

// ProductPurchased says that somebody bought a product.
type ProductPurchased struct {
	// EventID names the fact; whoever tells it again uses the same one.
	EventID   string `json:"event_id"`
	UserID    string `json:"user_id,omitempty"`
	SessionID string `json:"session_id,omitempty"`
	ProductID string `json:"product_id"`
	// Value is what was paid, all pieces together.
	Value    Amount `json:"value"`
	Currency string `json:"currency,omitempty"`
	Quantity int    `json:"quantity,omitempty"`
	OrderID  string `json:"order_id,omitempty"`
	// Timestamp is when it happened.
	Timestamp time.Time `json:"timestamp"`
	// Properties hold whatever else the client wants to keep with the event.
	Properties map[string]any `json:"properties,omitempty"`
}

// EventType is analytics.product_purchased.
func (ProductPurchased) EventType() string { return TypeProductPurchased }

// Subject is sessions/<session id>, or products/<product id> where there is no session.
func (e ProductPurchased) Subject() string { return activitySubject(e.SessionID, e.ProductID) }

// Key is the session, whose events stay in order; without one it is the product.
func (e ProductPurchased) Key() string { return activityKey(e.SessionID, e.ProductID) }

// RecommendationGenerated says that an algorithm recommended products to somebody.
type RecommendationGenerated struct {
	// EventID names the fact; whoever tells it again uses the same one.
	EventID   string `json:"event_id"`
	UserID    string `json:"user_id,omitempty"`
	SessionID string `json:"session_id,omitempty"`
	ProductID string `json:"product_id,omitempty"`
	Algorithm string `json:"algorithm"`
	// ConfidenceScores are the algorithm's confidence in each product that it recommended, from 0 to 1.
	ConfidenceScores []float64 `json:"confidence_scores"`
	// Timestamp is when it happened.
	Timestamp time.Time `json:"timestamp"`
	// Properties hold whatever else the client wants to keep with the event.
	Properties map[string]any `json:"properties,omitempty"`
}

// EventType is analytics.recommendation_generated.
func (RecommendationGenerated) EventType() string { return TypeRecommendationGenerated }

// Subject is sessions/<session id>, or algorithms/<algorithm> where there is no session.
func (e RecommendationGenerated) Subject() string {
	if e.SessionID == "" {
		return "algorithms/" + e.Algorithm
	}
	return "sessions/" + e.SessionID
}

// Key is the session, whose events stay in order; without one it is the algorithm.
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

// AnomalyDetected says that the figures of a product are not what its own history lets one expect.
type AnomalyDetected struct {
	// AnomalyID follows from what was found: finding it again gives the same one.
	AnomalyID string `json:"anomaly_id"`
	Kind      string `json:"kind"`
	ProductID string `json:"product_id"`
	// Expected is the mean that the history gives: an amount of money for a purchase, views a minute for a spike.
	Expected float64 `json:"expected"`
	// Observed is what was seen instead.
	Observed float64 `json:"observed"`
	// Deviation is the standard deviation of the history.
	Deviation float64 `json:"deviation"`
	// Score is by how many deviations the observed differs from the expected.
	Score float64 `json:"score"`
	// Message is a sentence for people.
	Message string `json:"message"`
	// EventID is the event that showed the anomaly.
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
