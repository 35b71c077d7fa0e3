// Package broker runs the embedded broker: one node that speaks the Kafka protocol, keeps its topics and offsets on disk,
// and listens on the loopback interface unless another address is configured, as in a container. It is for development: no
// replicas, no authentication.
package broker

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Partitions of every topic: enough to process eight orders of different customers at once.
const Partitions = 8

// Broker is a running broker.
type Broker struct {
	cluster *kfake.Cluster
	client  *kgo.Client // of the broker itself
	stop    context.CancelFunc
	pruning sync.WaitGroup
}

// Listen is the address of a broker.
type Listen struct {
	// Host is the address of one interface; empty means the loopback interface.
	Host string
	// Port may be 0, for any free one.
	Port int
	// Advertised is the host:port that the broker announces to its clients; empty means its own address. Clients on other
	// machines need one that they can reach: a client uses the configured address only until the first answer.
	Advertised string
}

// Start opens the data in dir, listens, creates missing topics, and removes old records as r says until Close. Only Start creates
// topics: the broker forgets a topic that a client created by naming it when the broker is killed. Records that were produced
// before a kill -9 exist after the next Start.
func Start(dir string, at Listen, topics []string, r Retention, log io.Writer) (_ *Broker, err error) {
	if err := at.check(); err != nil {
		return nil, fmt.Errorf("start broker: %w", err)
	}
	var own net.Addr
	cluster, err := kfake.NewCluster(
		kfake.Ports(at.Port),
		kfake.ListenFn(func(network, address string) (net.Listener, error) {
			l, err := at.listen(network, address)
			if err != nil {
				return nil, err
			}
			own = l.Addr()
			if at.Advertised != "" {
				l = advertised{l, name(at.Advertised)}
			}
			return l, nil
		}),
		kfake.DataDir(dir),
		kfake.BrokerConfigs(brokerConfigs),
		kfake.WithLogger(kfake.BasicLogger(log, kfake.LogLevelWarn)),
	)
	if err != nil {
		return nil, fmt.Errorf("start broker on port %d: %w", at.Port, err)
	}
	defer func() {
		if err != nil {
			cluster.Close()
		}
	}()
	topics = sorted(topics)
	for _, topic := range topics {
		if err := ensure(cluster, topic); err != nil {
			return nil, fmt.Errorf("create topic %s: %w", topic, err)
		}
	}
	// The name that clients get may belong to another machine.
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, itself(own))
	}
	client, err := newClient(cluster.ListenAddrs()[0], kgo.Dialer(dial))
	if err != nil {
		return nil, err
	}
	if err := configure(client, cluster, topics); err != nil {
		client.Close()
		return nil, fmt.Errorf("configure topics: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	b := &Broker{cluster: cluster, client: client, stop: stop}
	b.pruning.Go(func() { b.keepPruning(ctx, topics, r, log) })
	return b, nil
}

func ensure(cluster *kfake.Cluster, topic string) error {
	if cluster.TopicInfo(topic) != nil {
		return nil
	}
	return cluster.CreateTopic(topic, Partitions, topicConfigs)
}

func (l Listen) check() error {
	if l.Advertised == "" {
		return nil
	}
	_, port, err := net.SplitHostPort(l.Advertised)
	if err != nil {
		return fmt.Errorf("the advertised address is a host:port: %w", err)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("the advertised address %q has no port number", l.Advertised)
	}
	return nil
}

// listen is called by kfake for a listener on address, a port of the loopback interface.
func (l Listen) listen(network, address string) (net.Listener, error) {
	if l.Host != "" {
		address = net.JoinHostPort(l.Host, strconv.Itoa(l.Port))
	}
	return new(net.ListenConfig).Listen(context.Background(), network, address)
}

// itself is the address at which this machine reaches its own listener.
func itself(own net.Addr) string {
	if tcp, ok := own.(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		return Address(tcp.Port)
	}
	return own.String()
}

// advertised is a listener under another name, which kfake announces to its clients.
type advertised struct {
	net.Listener
	name name
}

// Addr implements net.Listener.
func (a advertised) Addr() net.Addr { return a.name }

// name is a host:port that may belong to another machine.
type name string

// Network implements net.Addr.
func (name) Network() string { return "tcp" }

func (n name) String() string { return string(n) }

// Addr is the host:port that the broker announces to its clients.
func (b *Broker) Addr() string { return b.cluster.ListenAddrs()[0] }

// Close writes everything to disk and stops.
func (b *Broker) Close() {
	b.stop()
	b.pruning.Wait()
	b.client.Close()
	b.cluster.Close()
}

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

// Reads asks the broker at addr whether the consumer group reads every partition of all topics. Until it does, published events
// wait.
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

func newClient(addr string, options ...kgo.Opt) (*kgo.Client, error) {
	if len(options) == 0 {
		options = []kgo.Opt{kgo.DialTimeout(time.Second)}
	}
	client, err := kgo.NewClient(append(options, kgo.SeedBrokers(addr), kgo.RequestRetries(0))...)
	if err != nil {
		return nil, fmt.Errorf("broker client: %w", err)
	}
	return client, nil
}

// Address is the host:port a broker on port listens on.
func Address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
