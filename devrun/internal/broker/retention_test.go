package broker

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

func producer(t *testing.T, addr string) *kgo.Client {
	t.Helper()
	c, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.DefaultProduceTopic("orders"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// produce writes n records of a size to each partition.
func produce(t *testing.T, c *kgo.Client, n, size int) {
	t.Helper()
	for range n {
		records := make([]*kgo.Record, Partitions)
		for p := range records {
			value := make([]byte, size) // that does not compress
			_, _ = rand.Read(value)
			records[p] = &kgo.Record{Partition: int32(p), Value: value}
		}
		if err := c.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

// read reads n records as the group and commits them.
func read(t *testing.T, addr string, n int) []*kgo.Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.ConsumerGroup("app"), kgo.ConsumeTopics("orders"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(100*time.Millisecond), kgo.DisableAutoCommit())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var got []*kgo.Record
	for len(got) < n {
		fetches := c.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("after %d of %d records: %v", len(got), n, err)
		}
		got = append(got, fetches.Records()...)
	}
	if err := c.CommitRecords(ctx, got...); err != nil {
		t.Fatal(err)
	}
	return got
}

func size(t *testing.T, dir string) (bytes int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".dat" {
			return nil //nolint:nilerr // files go while they are counted
		}
		if info, err := entry.Info(); err == nil {
			bytes += info.Size()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return bytes
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not within 30 s: " + what)
		}
	}
}

// A restart comes first, because kfake's own retention does not survive one. After the kill the files alone say where each
// partition is: a consumer group must go on behind what it has read.
func TestOldRecordsGoAndProgressOutlivesAKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd, _ := start(t, dir, "orders")
	kill(t, cmd)
	cmd, addr := startWith(t, "1s", dir, "orders")
	const each = 40
	produce(t, producer(t, addr), each, 100_000) // four files a partition
	read(t, addr, each*Partitions)
	const files = Partitions * (segmentBytes + 200_000)
	eventually(t, "the disk holds at most one file a partition", func() bool { return size(t, dir) <= files })
	kill(t, cmd)

	_, addr = start(t, dir, "orders")
	produce(t, producer(t, addr), 1, 10)
	for _, r := range read(t, addr, Partitions) {
		if r.Offset != each {
			t.Errorf("partition %d goes on at offset %d, want %d", r.Partition, r.Offset, each)
		}
	}
}

func kill(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
}

func running(t *testing.T, dir string) *Broker {
	t.Helper()
	b, err := Start(dir, Listen{}, []string{"orders"}, DefaultRetention(), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

func TestWhatAGroupHasToReadIsRemovedForItsAgeOnly(t *testing.T) {
	t.Parallel()
	b := running(t, t.TempDir())
	p := producer(t, b.Addr())
	produce(t, p, 10, 1000)
	read(t, b.Addr(), 10*Partitions)
	produce(t, p, 90, 1000)
	prune := func(r Retention, now time.Time) {
		t.Helper()
		if err := b.prune(t.Context(), []string{"orders"}, r, now); err != nil {
			t.Fatal(err)
		}
	}
	starts := func(want int64) {
		t.Helper()
		for _, info := range b.cluster.PartitionInfos("orders") {
			if info.LogStartOffset != want || info.HighWatermark != 100 {
				t.Errorf("partition %d has the records %d to %d, want %d to 100", info.Partition, info.LogStartOffset, info.HighWatermark, want)
			}
		}
	}
	now := time.Now()
	prune(Retention{Age: time.Hour, Bytes: 1 << 30}, now)
	starts(0)
	prune(Retention{Age: time.Hour, Bytes: 10_000}, now)
	starts(10)
	read(t, b.Addr(), 90*Partitions)
	prune(Retention{Age: time.Hour, Bytes: 10_000}, now)
	for _, info := range b.cluster.PartitionInfos("orders") {
		if info.LogStartOffset < 85 || info.NumBytes > 20_000 {
			t.Errorf("partition %d keeps %d bytes from offset %d", info.Partition, info.NumBytes, info.LogStartOffset)
		}
	}
	prune(Retention{Age: time.Hour, Bytes: 1 << 30}, now.Add(2*time.Hour))
	starts(99)
	prune(Retention{Age: time.Hour, Bytes: 1 << 30}, now.Add(2*time.Hour))
	starts(99)
}

func TestTopicsOfAnEarlierReleaseAreConfigured(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cluster, err := kfake.NewCluster(kfake.Ports(0), kfake.DataDir(dir))
	if err != nil {
		t.Fatal(err)
	}
	earlier := map[string]string{"retention.ms": strconv.Itoa(7 * 24 * 3600 * 1000), "retention.bytes": strconv.Itoa(64 << 20), "segment.bytes": strconv.Itoa(16 << 20)}
	if err := cluster.CreateTopic("orders", Partitions, earlier); err != nil {
		t.Fatal(err)
	}
	cluster.Close()
	info := running(t, dir).cluster.TopicInfo("orders")
	for name, want := range topicConfigs {
		if got := info.Configs[name]; got == nil || *got != want {
			t.Errorf("%s is %v, want %s", name, got, want)
		}
	}
}

func TestABrokerPrunesThatClientsReachUnderAnotherName(t *testing.T) {
	t.Parallel()
	b, err := Start(t.TempDir(), Listen{Host: "0.0.0.0", Advertised: "broker.invalid:9092"}, []string{"orders"}, DefaultRetention(), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.prune(t.Context(), []string{"orders"}, DefaultRetention(), time.Now()); err != nil {
		t.Error(err)
	}
}

func TestReadRetention(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{"": 168 * time.Hour, "90s": 90 * time.Second, "0s": 0, "-1h": 0, "a week": 0} {
		r, err := ReadRetention(text)
		if (err != nil) != (want == 0) || err == nil && r.Age != want {
			t.Errorf("%q: %v, %v", text, r.Age, err)
		}
	}
	for age, want := range map[time.Duration]time.Duration{time.Second: time.Second, time.Minute: 6 * time.Second, 168 * time.Hour: pruneInterval} {
		if got := (Retention{Age: age}).interval(); got != want {
			t.Error(fmt.Sprint(age, " is looked at every ", got, ", want ", want))
		}
	}
}
