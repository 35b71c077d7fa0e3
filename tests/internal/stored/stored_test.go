package stored

import "testing"

func TestKindOf(t *testing.T) {
	t.Parallel()
	const workflow = "fulfillment||dapr.internal.default.fulfillment.workflow||"
	for key, want := range map[string]string{
		"orders||order:ORD-1001":                           "order",
		"fulfillment||backlog:sagas:01J:0":                 "backlog",
		"notifications||vapid-keys":                        "vapid-keys",
		workflow + "ORD-1001||history-000003":              "history",
		workflow + "ORD-1001:compensation||history-000003": "history",
		workflow + "ORD-1001||inbox-000000":                "inbox",
		workflow + "ORD-1001||metadata":                    "state",
		workflow + "ORD-1001||customStatus":                "state",
	} {
		if got := kindOf(key); got != want {
			t.Errorf("%s is of the kind %s, want %s", key, got, want)
		}
	}
}
