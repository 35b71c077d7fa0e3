package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"waybill/contracts"
)

// emulatorsFolder holds what the containers of Microsoft's emulators are told, seen from the contracts folder.
var emulatorsFolder = filepath.Join("..", "components", "emulators")

// emulators are the configurations of the Service Bus and the Event Hubs emulator, by path.
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

// serviceBus is what infra/bicep makes of the order bus, within the emulator's limits: it delivers a message ten times at most
// and keeps it for an hour at most. The namespace's name is the only one that the emulator takes.
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
			// What others forward to comes first.
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

// eventHubs has an event hub for each topic of the telemetry bus. Kafka's consumer groups need not be named.
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
