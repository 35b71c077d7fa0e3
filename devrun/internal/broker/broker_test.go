package broker

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TestMain lets the test program play the broker's process, so that it can be killed.
func TestMain(m *testing.M) {
	dir := os.Getenv("WAYBILL_BROKER")
	if dir == "" {
		os.Exit(m.Run())
	}
	retention, err := ReadRetention(os.Getenv("BROKER_RETENTION"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	b, err := Start(dir, Listen{}, strings.Split(os.Getenv("WAYBILL_TOPICS"), ","), retention, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Fprintln(os.Stdout, b.Addr())
	io.Copy(io.Discard, os.Stdin)
	b.Close()
}

func start(t *testing.T, dir string, topics ...string) (cmd *exec.Cmd, addr string) {
	t.Helper()
	return startWith(t, "", dir, topics...)
}

// startWith starts a broker whose records are kept for so long.
func startWith(t *testing.T, retention, dir string, topics ...string) (cmd *exec.Cmd, addr string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), "WAYBILL_BROKER="+dir, "WAYBILL_TOPICS="+strings.Join(topics, ","), "BROKER_RETENTION="+retention)
	cmd.Stderr = os.Stderr
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	addr, err = bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("broker did not start: %v", err)
	}
	return cmd, strings.TrimSpace(addr)
}

func TestTopicsAndRecordsOutliveAKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd, addr := start(t, dir, "orders", "inventory")
	ctx := t.Context()

	producer, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.DefaultProduceTopic("orders"))
	if err != nil {
		t.Fatal(err)
	}
	const records = 100
	want := make([]string, 0, records)
	for i := range records {
		value := fmt.Sprintf("order %03d", i)
		want = append(want, value)
		record := &kgo.Record{Key: []byte(value), Value: []byte(value)}
		if err := producer.ProduceSync(ctx, record).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	producer.Close()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()

	// A topic that is new to existing data is created too.
	_, addr = start(t, dir, "orders", "inventory", "added")
	if err := Check(ctx, addr, []string{"orders", "inventory", "added"}); err != nil {
		t.Error(err)
	}
	if err := Check(ctx, addr, []string{"missing"}); err == nil {
		t.Error("a topic nobody asked for exists")
	}

	consumer, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.ConsumeTopics("orders"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer consumer.Close()
	var got []string
	for len(got) < len(want) {
		fetches := consumer.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) { got = append(got, string(r.Value)) })
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("read %d records, want the %d written", len(got), len(want))
	}
}

func TestReadsWaitsForTheGroup(t *testing.T) {
	t.Parallel()
	_, addr := start(t, t.TempDir(), "orders", "inventory")
	ctx := t.Context()
	if err := Reads(ctx, addr, "app", []string{"orders"}); err == nil {
		t.Error("a group nobody joined reads")
	}
	consumer, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.ConsumerGroup("app"), kgo.ConsumeTopics("orders"))
	if err != nil {
		t.Fatal(err)
	}
	defer consumer.Close()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := Reads(ctx, addr, "app", []string{"orders"})
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	if err := Reads(ctx, addr, "app", []string{"orders", "inventory"}); err == nil {
		t.Error("the group reads a topic it did not subscribe to")
	}
}
