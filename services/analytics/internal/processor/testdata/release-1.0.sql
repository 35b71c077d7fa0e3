-- A file that release 1.0 wrote: two purchases of an order, two views, a purchase in another currency and a recommendation.
PRAGMA user_version = 1;
CREATE TABLE AnalyticsEvents (
	Seq         INTEGER PRIMARY KEY, -- the order of arrival
	EventId     TEXT NOT NULL UNIQUE,
	EventType   TEXT NOT NULL,
	Timestamp   INTEGER NOT NULL,
	UserId      TEXT NOT NULL,
	SessionId   TEXT NOT NULL,
	ProductId   TEXT NOT NULL,
	Value       REAL NOT NULL,
	Properties  TEXT NOT NULL,
	ProcessedAt INTEGER NOT NULL
) STRICT;
INSERT INTO "AnalyticsEvents" VALUES(1,'order:ORD-1:1','analytics.product_purchased',1773480361000000,'CUST-123','','PROD-001',99.98,'{"waybill":{"quantity":2,"order_id":"ORD-1"}}',1773480390000000);
INSERT INTO "AnalyticsEvents" VALUES(2,'order:ORD-1:2','analytics.product_purchased',1773480361000000,'CUST-123','','PROD-002',1.0,'{"waybill":{"quantity":1,"order_id":"ORD-1"}}',1773480390000000);
INSERT INTO "AnalyticsEvents" VALUES(3,'EVT-1','analytics.product_viewed',1773480361000000,'','S-1','PROD-001',0.0,'{}',1773480390000000);
INSERT INTO "AnalyticsEvents" VALUES(4,'EVT-2','analytics.product_viewed',1773480361000000,'','S-1','PROD-001',0.0,'{"device":"phone","utm_source":"waybill"}',1773480390000000);
INSERT INTO "AnalyticsEvents" VALUES(5,'EVT-3','analytics.product_purchased',1773480361000000,'','','PROD-003',0.0,'{"note":"a \"b\" \u003cc\u003e","waybill":{"value":12.50,"currency":"EUR","quantity":2}}',1773480390000000);
INSERT INTO "AnalyticsEvents" VALUES(6,'EVT-4','analytics.recommendation_generated',1773480361000000,'','','',0.0,'{"waybill":{"algorithm":"knn","confidence_scores":[0.5,0.25]}}',1773480390000000);
CREATE TABLE Anomalies (
	AnomalyId TEXT PRIMARY KEY,
	Type      TEXT NOT NULL,
	ProductId TEXT NOT NULL,
	Expected  REAL NOT NULL,
	Seen      REAL NOT NULL,
	Score     REAL NOT NULL,
	Sentence  TEXT NOT NULL,
	Timestamp INTEGER NOT NULL,
	UpdatedAt INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE RealtimeMetrics (
	MetricName TEXT NOT NULL,
	Window     TEXT NOT NULL,
	Timestamp  INTEGER NOT NULL,
	Count      INTEGER NOT NULL,
	Sum        REAL NOT NULL,
	Mean       REAL NOT NULL,
	Median     REAL NOT NULL,
	Min        REAL NOT NULL,
	Max        REAL NOT NULL,
	StdDev     REAL NOT NULL,
	P95        REAL NOT NULL,
	P99        REAL NOT NULL,
	ComputedAt INTEGER NOT NULL,
	PRIMARY KEY (MetricName, Window, Timestamp)
) STRICT, WITHOUT ROWID;
CREATE INDEX AnalyticsEventsByTime ON AnalyticsEvents (Timestamp, EventType, ProductId, Value);
CREATE INDEX RealtimeMetricsByTime ON RealtimeMetrics (Timestamp);
CREATE INDEX AnomaliesByTime ON Anomalies (Timestamp, AnomalyId);
CREATE INDEX AnomaliesByProduct ON Anomalies (ProductId, Timestamp, AnomalyId);
