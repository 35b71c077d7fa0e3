package broker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Retention is how long records are kept. Files are removed whole, so up to segmentBytes more of a partition remain.
type Retention struct {
	// Age is how long every record is kept, consumed or not.
	Age time.Duration
	// Bytes is how much of a partition is kept. A record that a consumer group has not consumed is not removed because of the
	// size.
	Bytes int64
}

// DefaultRetention is a week, as on Event Hubs and Service Bus, and 16 MiB per partition.
func DefaultRetention() Retention { return Retention{Age: 7 * 24 * time.Hour, Bytes: 16 << 20} }

const (
	// pruneInterval is the longest time between two removals. It is also the time that consumers have, after a start, for records
	// that expired while nothing ran.
	pruneInterval = 10 * time.Minute
	pruneTimeout  = time.Minute
	// segmentBytes is the size of the files of a partition; one is removed when all that it holds is too old.
	segmentBytes = 512 << 10
)

// interval is how often old records are removed: often enough for a short Age, as in tests.
func (r Retention) interval() time.Duration {
	return min(max(r.Age/10, time.Second), pruneInterval)
}

// topicConfigs disable kfake's own retention. It does not run after a restart, because kfake starts it only when a topic is
// created. It also removes the last record of a partition, after which the partition of a killed broker begins at offset 0 again
// although consumers have committed higher offsets: they would skip new records.
var topicConfigs = map[string]string{
	"retention.ms":    "-1",
	"retention.bytes": "-1",
	"segment.bytes":   strconv.Itoa(segmentBytes),
}

// brokerConfigs keep the offsets of a consumer group that does not run for far longer than its records, so a group never loses
// them while there are records that it has consumed.
var brokerConfigs = map[string]string{"offsets.retention.minutes": strconv.Itoa(90 * 24 * 60)}

// configure brings topics that an earlier release created up to date.
func configure(client *kgo.Client, cluster *kfake.Cluster, topics []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), pruneTimeout)
	defer cancel()
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	for _, topic := range topics {
		info := cluster.TopicInfo(topic)
		if info == nil {
			continue
		}
		resource := kmsg.NewIncrementalAlterConfigsRequestResource()
		resource.ResourceType, resource.ResourceName = kmsg.ConfigResourceTypeTopic, topic
		for name, value := range topicConfigs {
			if now := info.Configs[name]; now != nil && *now == value {
				continue
			}
			config := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
			config.Name, config.Value, config.Op = name, new(value), kmsg.IncrementalAlterConfigOpSet
			resource.Configs = append(resource.Configs, config)
		}
		if len(resource.Configs) > 0 {
			req.Resources = append(req.Resources, resource)
		}
	}
	if len(req.Resources) == 0 {
		return nil
	}
	resp, err := req.RequestWith(ctx, client)
	if err != nil {
		return err
	}
	for _, r := range resp.Resources {
		if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
			return fmt.Errorf("topic %s: %w", r.ResourceName, err)
		}
	}
	return nil
}

// keepPruning removes old records at every interval until ctx ends. It waits for one interval first.
func (b *Broker) keepPruning(ctx context.Context, topics []string, r Retention, log io.Writer) {
	ticker := time.NewTicker(r.interval())
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		bounded, cancel := context.WithTimeout(ctx, pruneTimeout)
		err := b.prune(bounded, topics, r, time.Now())
		cancel()
		if err != nil && ctx.Err() == nil {
			_, _ = fmt.Fprintf(log, "broker: old records were not removed; will try again in %s: %v\n", r.interval(), err)
		}
	}
}

// prune removes the records of every partition that are older than r.Age, and then the oldest while the partition is larger than
// r.Bytes and every consumer group has consumed them. The last record stays because it holds the partition's offset.
func (b *Broker) prune(ctx context.Context, topics []string, r Retention, now time.Time) error {
	young, err := b.firstSince(ctx, topics, now.Add(-r.Age))
	if err != nil {
		return err
	}
	var read map[string]map[int32]int64
	for _, topic := range topics {
		for _, p := range b.cluster.PartitionInfos(topic) {
			to, known := young[topic][p.Partition]
			if !known {
				continue
			}
			if to < 0 { // none is younger
				to = p.HighWatermark
			}
			if p.NumBytes > r.Bytes {
				if read == nil {
					if read, err = b.readByAll(ctx); err != nil {
						return err
					}
				}
				// All records are assumed to have the same size; the next pass corrects that.
				share := float64(p.NumBytes-r.Bytes) / float64(p.NumBytes)
				large := p.LogStartOffset + int64(math.Ceil(share*float64(p.HighWatermark-p.LogStartOffset)))
				if by, ok := read[topic][p.Partition]; ok {
					large = min(large, by)
				}
				to = max(to, large)
			}
			if to = min(to, p.HighWatermark-1); to <= p.LogStartOffset {
				continue
			}
			if err := b.cluster.DeleteRecords(topic, p.Partition, to); err != nil {
				return fmt.Errorf("remove old records of topic %s, partition %d: %w", topic, p.Partition, err)
			}
		}
	}
	return nil
}

// firstSince is the offset of the first record since a time, for each partition; -1 if there is none.
func (b *Broker) firstSince(ctx context.Context, topics []string, since time.Time) (map[string]map[int32]int64, error) {
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = -1
	for _, topic := range topics {
		t := kmsg.NewListOffsetsRequestTopic()
		t.Topic = topic
		for _, info := range b.cluster.PartitionInfos(topic) {
			p := kmsg.NewListOffsetsRequestTopicPartition()
			p.Partition, p.Timestamp = info.Partition, since.UnixMilli()
			t.Partitions = append(t.Partitions, p)
		}
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(ctx, b.client)
	if err != nil {
		return nil, fmt.Errorf("find old records: %w", err)
	}
	offsets := map[string]map[int32]int64{}
	for _, t := range resp.Topics {
		offsets[t.Topic] = map[int32]int64{}
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return nil, fmt.Errorf("find old records of topic %s, partition %d: %w", t.Topic, p.Partition, err)
			}
			offsets[t.Topic][p.Partition] = p.Offset
		}
	}
	return offsets, nil
}

// readByAll is the lowest offset that a consumer group has committed, for each partition with a consumer group.
func (b *Broker) readByAll(ctx context.Context) (map[string]map[int32]int64, error) {
	resp, err := kmsg.NewPtrListGroupsRequest().RequestWith(ctx, b.client)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		return nil, fmt.Errorf("list consumer groups: %w", err)
	}
	read := map[string]map[int32]int64{}
	for _, g := range resp.Groups {
		group := b.cluster.GroupInfo(g.Group)
		if group == nil {
			continue
		}
		for topic, partitions := range group.Commits {
			if read[topic] == nil {
				read[topic] = map[int32]int64{}
			}
			for partition, commit := range partitions {
				if lowest, ok := read[topic][partition]; !ok || commit.Offset < lowest {
					read[topic][partition] = commit.Offset
				}
			}
		}
		for _, member := range group.Members {
			for _, topic := range member.SubscribedTopics {
				for _, p := range b.cluster.PartitionInfos(topic) {
					if _, ok := group.Commits[topic][p.Partition]; !ok {
						if read[topic] == nil {
							read[topic] = map[int32]int64{}
						}
						read[topic][p.Partition] = 0 // it has read nothing yet
					}
				}
			}
		}
	}
	return read, nil
}

// ReadRetention is the retention whose age is text, DefaultRetention's when that is empty.
func ReadRetention(text string) (Retention, error) {
	r := DefaultRetention()
	if text == "" {
		return r, nil
	}
	age, err := time.ParseDuration(text)
	if err != nil || age < time.Second {
		return r, errors.New("BROKER_RETENTION is " + strconv.Quote(text) + ": a duration of at least 1s is expected, such as 168h")
	}
	r.Age = age
	return r, nil
}

// sorted is topics in one order, without repetitions.
func sorted(topics []string) []string { return slices.Compact(slices.Sorted(slices.Values(topics))) }
