// Package broker runs the embedded broker: one node that speaks the Kafka protocol, keeps its topics and offsets on disk,
// and listens on the loopback interface only. It is for development: no replicas, no authentication.
package broker

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Partitions of every topic. Enough that eight orders of different customers are worked on at once.
const Partitions = 8

// retention bounds what a forgotten data folder grows to: a week, and 64 MiB per partition.
var retention = map[string]string{
	"retention.ms":    strconv.FormatInt((7 * 24 * time.Hour).Milliseconds(), 10),
	"retention.bytes": strconv.Itoa(64 << 20),
	"segment.bytes":   strconv.Itoa(16 << 20),
}

// Broker is a running broker.
type Broker struct {
	cluster *kfake.Cluster
}

// Start opens the data in dir, listens on 127.0.0.1:port (0 is any free port) and makes sure that every topic exists.
// Topics are created here and never by a client: the broker forgets a topic that a client's mere mention created when it is
// killed. What was produced before a kill -9 is there again after the next Start.
func Start(dir string, port int, topics []string, log io.Writer) (*Broker, error) {
	cluster, err := kfake.NewCluster(
		kfake.Ports(port),
		kfake.DataDir(dir),
		kfake.WithLogger(kfake.BasicLogger(log, kfake.LogLevelWarn)),
	)
	if err != nil {
		return nil, fmt.Errorf("start broker on port %d: %w", port, err)
	}
	for _, topic := range topics {
		if err := ensure(cluster, topic); err != nil {
			cluster.Close()
			return nil, fmt.Errorf("create topic %s: %w", topic, err)
		}
	}
	return &Broker{cluster: cluster}, nil
}

func ensure(cluster *kfake.Cluster, topic string) error {
	if cluster.TopicInfo(topic) != nil {
		return nil
	}
	return cluster.CreateTopic(topic, Partitions, retention)
}

// Addr is the broker's host:port.
func (b *Broker) Addr() string { return b.cluster.ListenAddrs()[0] }

// Close writes everything to disk and stops.
func (b *Broker) Close() { b.cluster.Close() }

// Check asks the broker at addr whether it serves every one of topics.
func Check(ctx context.Context, addr string, topics []string) error {
	client, err := newClient(addr)
	if err != nil {
		return err
	}
	defer client.Close()
	req := kmsg.NewPtrMetadataRequest()
	for _, topic := range topics {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = new(topic)
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(ctx, client)
	if err != nil {
		return fmt.Errorf("ask broker %s: %w", addr, err)
	}
	for _, t := range resp.Topics {
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
			return fmt.Errorf("topic %s: %w", *t.Topic, err)
		}
	}
	return nil
}

// Reads asks the broker at addr whether the consumer group reads every partition of every one of topics. Until it does, an
// event published to them waits.
func Reads(ctx context.Context, addr, group string, topics []string) error {
	client, err := newClient(addr)
	if err != nil {
		return err
	}
	defer client.Close()
	req := kmsg.NewPtrDescribeGroupsRequest()
	req.Groups = []string{group}
	resp, err := req.RequestWith(ctx, client)
	if err != nil {
		return fmt.Errorf("ask broker %s: %w", addr, err)
	}
	read := map[string]int{}
	for _, g := range resp.Groups {
		if err := kerr.ErrorForCode(g.ErrorCode); err != nil {
			return fmt.Errorf("consumer group %s: %w", group, err)
		}
		if g.State != "Stable" {
			return fmt.Errorf("consumer group %s is %s, not stable yet", group, g.State)
		}
		for _, member := range g.Members {
			var assigned kmsg.ConsumerMemberAssignment
			if err := assigned.ReadFrom(member.MemberAssignment); err != nil {
				return fmt.Errorf("consumer group %s: read assignment: %w", group, err)
			}
			for _, t := range assigned.Topics {
				read[t.Topic] += len(t.Partitions)
			}
		}
	}
	for _, topic := range topics {
		if read[topic] < Partitions {
			return fmt.Errorf("consumer group %s reads %d of %d partitions of topic %s", group, read[topic], Partitions, topic)
		}
	}
	return nil
}

func newClient(addr string) (*kgo.Client, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.RequestRetries(0), kgo.DialTimeout(time.Second))
	if err != nil {
		return nil, fmt.Errorf("broker client: %w", err)
	}
	return client, nil
}

// Address is the host:port a broker on port listens on.
func Address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
