package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"waybill/contracts"
)

// emulatorsFolder has the configuration of Microsoft's emulators. The path is relative to the contracts folder.
var emulatorsFolder = filepath.Join("..", "components", "emulators")

// emulators returns the configurations of the Service Bus and the Event Hubs emulator by path.
func emulators(root string) (map[string][]byte, error) {
	files := map[string][]byte{}
	for name, config := range map[string]object{"servicebus.json": serviceBus(), "eventhubs.json": eventHubs()} {
		text, err := indented(config)
		if err != nil {
			return nil, fmt.Errorf("emulator configuration %s: %w", name, err)
		}
		files[filepath.Join(root, emulatorsFolder, name)] = text
	}
	return files, nil
}

// serviceBus returns the order bus as infra/bicep creates it, within the emulator's limits: it delivers a message at most ten times
// and keeps it for at most an hour. The emulator accepts only this name of the namespace.
func serviceBus() object {
	deadLetters, events := []object{}, []object{}
	for _, topic := range contracts.TopicsOf(contracts.OrderBus) {
		dead := strings.HasSuffix(topic, ".dead")
		subscriptions := []object{}
		for _, s := range contracts.Subscriptions() {
			switch {
			case s.Topic == topic:
				subscriptions = append(subscriptions, subscription(s.App, true, s.DeadLetter()))
			case s.DeadLetter() == topic:
				subscriptions = append(subscriptions, subscription(s.App, false, ""))
			}
		}
		described := object{
			{"Name", topic},
			{"Properties", object{
				{"DefaultMessageTimeToLive", "PT1H"},
				{"DuplicateDetectionHistoryTimeWindow", "PT1M"},
				{"RequiresDuplicateDetection", !dead},
			}},
			{"Subscriptions", subscriptions},
		}
		if dead {
			deadLetters = append(deadLetters, described)
		} else {
			events = append(events, described)
		}
	}
	return object{{"UserConfig", object{
		{"Namespaces", []object{{
			{"Name", "sbemulatorns"},
			{"Queues", []object{}},
			// Targets of forwarding come first.
			{"Topics", slices.Concat(deadLetters, events)},
		}}},
		{"Logging", object{{"Type", "File"}}},
	}}}
}

func subscription(app string, sessions bool, deadLetter string) object {
	return object{
		{"Name", app},
		{"Properties", object{
			{"DeadLetteringOnMessageExpiration", true},
			{"DefaultMessageTimeToLive", "PT1H"},
			{"LockDuration", "PT1M"},
			{"MaxDeliveryCount", 10},
			{"ForwardDeadLetteredMessagesTo", deadLetter},
			{"ForwardTo", ""},
			{"RequiresSession", sessions},
		}},
		{"Rules", []object{}},
	}
}

// eventHubs returns an event hub for each topic of the telemetry bus. Kafka consumer groups need no configuration.
func eventHubs() object {
	topics := contracts.TopicsOf(contracts.TelemetryBus)
	hubs := make([]object, 0, len(topics))
	for _, topic := range topics {
		hubs = append(hubs, object{{"Name", topic}, {"PartitionCount", "4"}, {"ConsumerGroups", []object{}}})
	}
	return object{{"UserConfig", object{
		{"NamespaceConfig", []object{{{"Type", "EventHub"}, {"Name", "emulatorNs1"}, {"Entities", hubs}}}},
		{"LoggingConfig", object{{"Type", "File"}}},
	}}}
}
