package saga_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dapr/durabletask-go/api/protos"
	"github.com/dapr/durabletask-go/workflow"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/emptypb"

	"waybill/contracts"
	"waybill/services/fulfillment/internal/record"
	"waybill/services/fulfillment/internal/saga"
)

// The release that is running replays the histories of all live orders. testdata/<version> has histories of that version's workflow, one
// for each way that an order can take and each place where it can wait. This version's code must schedule the same steps from them. A
// change that breaks one of them would strand live orders: make it behind a field of the input, behind ctx.IsPatched, or as a new version
// (registry.AddVersionedWorkflowN). Never change a history; add those of a new shape with
// go test ./internal/saga -run TestRecordHistories -record
var recordHistories = flag.Bool("record", false, "record the histories that testdata/"+recorded+" does not have yet")

// recorded is the version to which -record adds histories.
const recorded = "1.3"

// scenario brings an order's saga to the point where its history is recorded.
type scenario struct {
	limits saga.Limits
	order  contracts.Order
	play   func(w *world, order contracts.Order)
}

func scenarios() map[string]scenario {
	small, large := anOrder("ORDER-1"), aLargeOrder("ORDER-1")
	with := func(change func(o *contracts.Order)) contracts.Order {
		o := small
		change(&o)
		return o
	}
	end := func(w *world, o contracts.Order) { w.fulfill(o) }
	waiting := func(w *world, o contracts.Order) {
		w.start(o)
		w.until(o, "an approval", (*record.Saga).AwaitsApproval)
	}
	must := func(w *world, err error) {
		if err != nil {
			w.t.Fatal(err)
		}
	}
	// The engine loses the saga, a person decides in the meantime, and the saga is started again.
	lost := func(w *world, o contracts.Order, decide func(s *record.Saga) (bool, error)) {
		must(w, w.lose(o))
		_, err := w.records.Change(w.t.Context(), o.OrderID, decide)
		must(w, err)
		must(w, newReconciler(w.sagas, 0, time.Minute).Pass(w.t.Context()))
	}
	// The customer cancels after the first attempt of a step has failed.
	cancelledAfter := func(call string) func(w *world, o contracts.Order) {
		return func(w *world, o contracts.Order) {
			w.faults.set(call, 1, true)
			w.start(o)
			w.untilAStepFailed(o)
			must(w, w.cancel(o))
			w.end(o)
		}
	}
	short, slow, brief, hasty := quick, quick, quick, quick
	hasty.Reservation = time.Nanosecond
	short.Approval = 20 * time.Millisecond
	slow.FirstRetry, slow.LastRetry = time.Hour, time.Hour
	brief.FirstRetry, brief.LastRetry = 100*time.Millisecond, 100*time.Millisecond
	free := anOrder("ORDER-1", contracts.Line{ProductID: "PROD-001", Quantity: 1})
	return map[string]scenario{
		"fulfilled":               {quick, small, end},
		"fulfilled-after-retries": {quick, with(func(o *contracts.Order) { o.PaymentToken, o.ShipTo.Zip = "tok_fail_2", "X-FAIL-1" }), end},
		"declined":                {quick, with(func(o *contracts.Order) { o.PaymentToken = "tok_declined" }), end},
		"payment-down":            {quick, with(func(o *contracts.Order) { o.PaymentToken = "tok_down" }), end},
		"unknown-product": {quick, with(func(o *contracts.Order) {
			o.Items = []contracts.Line{{ProductID: "INVALID-PRODUCT", Quantity: 1, Price: 100}}
		}), end},
		"carrier-refuses":           {quick, with(func(o *contracts.Order) { o.ShipTo.Zip = "X-REFUSED" }), end},
		"carrier-down":              {quick, with(func(o *contracts.Order) { o.ShipTo.Zip = "X-DOWN" }), end},
		"waiting-for-approval":      {quick, large, waiting},
		"approval-timed-out":        {short, large, end},
		"cancelled-before-it-began": {quick, small, func(w *world, o contracts.Order) { must(w, w.cancel(o)); w.fulfill(o) }},
		"approved-after-an-empty-signal": {quick, large, func(w *world, o contracts.Order) {
			waiting(w, o)
			w.wake(o)
			must(w, w.decide(o, true, "approver@example.com"))
			w.end(o)
		}},
		"approval-refused": {quick, large, func(w *world, o contracts.Order) {
			waiting(w, o)
			must(w, w.decide(o, false, "approver@example.com"))
			w.end(o)
		}},
		"cancelled-while-waiting": {quick, large, func(w *world, o contracts.Order) {
			waiting(w, o)
			must(w, w.cancel(o))
			w.end(o)
		}},
		"cancelled-while-paying": {quick, small, func(w *world, o contracts.Order) {
			w.faults.hook("Charge", func() error { return w.cancel(o) })
			w.fulfill(o)
		}},
		"cancelled-while-payment-retries":     {slow, with(func(o *contracts.Order) { o.PaymentToken = "tok_down" }), cancelledAfter("Charge")},
		"cancelled-while-reservation-retries": {slow, small, cancelledAfter("Reserve")},
		"cancelled-while-shipment-retries":    {slow, with(func(o *contracts.Order) { o.ShipTo.Zip = "X-LOST" }), cancelledAfter("Book")},
		"fulfilled-after-busy-answers": {quick, small, func(w *world, o contracts.Order) {
			for _, call := range []string{"Charge", "Reserve", "Book"} {
				w.faults.busy(call, 2)
			}
			w.fulfill(o)
		}},
		"cancelled-while-busy": {slow, small, func(w *world, o contracts.Order) {
			w.faults.busy("Reserve", 1)
			w.start(o)
			w.untilItPauses(o)
			must(w, w.cancel(o))
			w.end(o)
		}},
		"reservation-timed-out": {hasty, small, func(w *world, o contracts.Order) {
			w.faults.set("Reserve", -1, true)
			w.fulfill(o)
		}},
		"cancelled-while-booking": {quick, small, func(w *world, o contracts.Order) {
			w.faults.hook("Book", func() error { return w.cancel(o) })
			w.fulfill(o)
		}},
		"cancelled-while-undoing": {quick, with(func(o *contracts.Order) { o.ShipTo.Zip = "X-REFUSED" }), func(w *world, o contracts.Order) {
			w.faults.hook("Refund", func() error { return w.cancel(o) })
			w.fulfill(o)
		}},
		"approved-and-cancelled": {quick, large, func(w *world, o contracts.Order) {
			waiting(w, o)
			w.faults.hook("Book", func() error { return w.cancel(o) })
			must(w, w.decide(o, true, "approver@example.com"))
			w.end(o)
		}},
		"retries-after-an-empty-signal": {brief, small, func(w *world, o contracts.Order) {
			w.faults.set("Charge", 1, false)
			w.faults.hook(of(o.OrderID, "Charge"), func() error { w.wake(o); return nil })
			w.fulfill(o)
		}},
		"messages-one-by-one": {quick, small, func(w *world, o contracts.Order) {
			w.faults.set("Publish sms", 2, false)
			w.fulfill(o)
		}},
		"free": {quick, free, end},
		"free-and-refused": {quick, func() contracts.Order {
			o := free
			o.PaymentToken, o.ShipTo.Zip = "tok_declined", "X-REFUSED"
			return o
		}(), end},
		"waiting-for-repair": {quick, small, func(w *world, o contracts.Order) {
			w.faults.set("Ship", -1, false)
			w.faults.set("Release", -1, false)
			w.start(o)
			w.until(o, "that the saga is blocked", (*record.Saga).AwaitsRepair)
		}},
		"repaired": {quick, small, func(w *world, o contracts.Order) {
			w.faults.set("Ship", -1, false)
			w.faults.set("Release", -1, false)
			w.start(o)
			w.until(o, "that the saga is blocked", (*record.Saga).AwaitsRepair)
			w.faults.set("Release", 0, false)
			_, err := w.sagas.Repair(w.t.Context(), o.OrderID, "operator@example.com", "The warehouse answers again.")
			must(w, err)
			w.end(o)
		}},
		"lost-and-approved": {quick, large, func(w *world, o contracts.Order) {
			waiting(w, o)
			lost(w, o, func(s *record.Saga) (bool, error) {
				return s.Decide(true, "approver@example.com", "Known customer.", time.Now())
			})
			w.end(o)
		}},
		"lost-and-cancelled": {quick, large, func(w *world, o contracts.Order) {
			waiting(w, o)
			lost(w, o, func(s *record.Saga) (bool, error) { return s.Cancel("Ordered twice.", time.Now()), nil })
			w.end(o)
		}},
		"lost-and-repaired": {quick, small, func(w *world, o contracts.Order) {
			w.faults.set("Ship", -1, false)
			w.faults.set("Release", -1, false)
			w.start(o)
			w.until(o, "that the saga is blocked", (*record.Saga).AwaitsRepair)
			lost(w, o, func(s *record.Saga) (bool, error) {
				w.faults.set("Release", 8, false) // as often as one more round attempts it
				return s.Repair("operator@example.com", "The warehouse answers again.", time.Now())
			})
			w.end(o)
		}},
	}
}

func TestRecordHistories(t *testing.T) {
	t.Parallel()
	if !*recordHistories {
		t.Skip("only with -record")
	}
	for name, s := range scenarios() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, s.limits)
			s.play(w, s.order)
			for _, instance := range []string{s.order.OrderID, s.order.OrderID + ":compensation", s.order.OrderID + ":compensation:restart:1"} {
				file := filepath.Join("testdata", recorded, name+strings.TrimPrefix(strings.ReplaceAll(instance, ":", "."), s.order.OrderID)+".json")
				if _, err := os.Stat(file); err == nil {
					continue
				}
				history, err := w.client.GetInstanceHistory(t.Context(), instance)
				if err != nil || len(history.Events) == 0 {
					continue // it was not compensated
				}
				if err := os.WriteFile(file, encodeHistory(t, history.Events), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func encodeHistory(t *testing.T, events []*protos.HistoryEvent) []byte {
	t.Helper()
	lines := make([]string, len(events))
	for i, e := range events {
		line, err := protojson.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		lines[i] = string(line)
	}
	return []byte("[\n" + strings.Join(lines, ",\n") + "\n]\n")
}

func decodeHistory(t *testing.T, file string) []*protos.HistoryEvent {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var raw []json.RawMessage
	if err := json.Unmarshal(content, &raw); err != nil {
		t.Fatal(err)
	}
	events := make([]*protos.HistoryEvent, len(raw))
	for i, r := range raw {
		events[i] = &protos.HistoryEvent{}
		if err := protojson.Unmarshal(r, events[i]); err != nil {
			t.Fatal(err)
		}
	}
	return events
}

func TestReleasedHistoriesStillReplay(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*/*.json")
	if err != nil || len(files) < len(scenarios()) {
		t.Fatalf("%d histories for %d scenarios, %v", len(files), len(scenarios()), err)
	}
	worker := startReplayer(t)
	for _, file := range files {
		t.Run(strings.TrimSuffix(strings.TrimPrefix(file, "testdata/"), ".json"), func(t *testing.T) {
			t.Parallel()
			checkReplay(t, worker, decodeHistory(t, file))
		})
	}
}

// checkReplay checks that every run of the workflow schedules the same now as in its history.
func checkReplay(t *testing.T, worker *replayer, history []*protos.HistoryEvent) {
	t.Helper()
	for begin := 0; begin < len(history); {
		next := begin + 1
		for next < len(history) && history[next].GetWorkflowStarted() == nil {
			next++
		}
		var got, want []string
		var events []*protos.HistoryEvent
		for _, e := range history[begin:next] {
			if scheduled := scheduledThen(e); scheduled != "" {
				want = append(want, scheduled)
			} else if e.GetExecutionCompleted() == nil {
				events = append(events, e)
			}
		}
		ended := slices.ContainsFunc(history[begin:next], func(e *protos.HistoryEvent) bool { return e.GetExecutionCompleted() != nil })
		response, err := worker.run(t.Context(), history[:begin], events)
		if err != nil {
			t.Fatal(err)
		}
		completed := false
		for _, action := range response.GetActions() {
			if c := action.GetCompleteWorkflow(); c != nil {
				completed = true
				if c.GetFailureDetails() != nil {
					t.Errorf("after %d events the workflow fails: %s", begin, c.GetFailureDetails().GetErrorMessage())
				}
				continue
			}
			got = append(got, scheduledNow(action))
		}
		slices.Sort(got) // the engine does not keep the sequence of what is scheduled at once
		slices.Sort(want)
		if diff := cmp.Diff(want, got); diff != "" || completed != ended {
			t.Errorf("after %d events the workflow schedules something else (-recorded +now), ends: recorded %v, now %v\n%s", begin, ended, completed, diff)
		}
		begin = next
	}
}

// scheduledThen describes what the workflow scheduled by a recorded event; empty if the event is of another kind.
func scheduledThen(e *protos.HistoryEvent) string {
	switch {
	case e.GetTaskScheduled() != nil:
		return fmt.Sprintf("%d activity %s %s", e.GetEventId(), e.GetTaskScheduled().GetName(), e.GetTaskScheduled().GetInput().GetValue())
	case e.GetTimerCreated() != nil:
		return fmt.Sprintf("%d timer", e.GetEventId())
	case e.GetChildWorkflowInstanceCreated() != nil:
		return fmt.Sprintf("%d workflow %s as %s", e.GetEventId(), e.GetChildWorkflowInstanceCreated().GetName(), e.GetChildWorkflowInstanceCreated().GetInstanceId())
	default:
		return ""
	}
}

// scheduledNow describes what the workflow schedules by an action.
func scheduledNow(a *protos.WorkflowAction) string {
	switch {
	case a.GetScheduleTask() != nil:
		return fmt.Sprintf("%d activity %s %s", a.GetId(), a.GetScheduleTask().GetName(), a.GetScheduleTask().GetInput().GetValue())
	case a.GetCreateTimer() != nil:
		return fmt.Sprintf("%d timer", a.GetId())
	case a.GetCreateChildWorkflow() != nil:
		return fmt.Sprintf("%d workflow %s as %s", a.GetId(), a.GetCreateChildWorkflow().GetName(), a.GetCreateChildWorkflow().GetInstanceId())
	default:
		return a.String()
	}
}

// replayer is the engine's side of a connection to a real worker. It gives the worker one run of a workflow at a time and returns what
// the worker schedules. It runs no activity.
type replayer struct {
	protos.UnimplementedTaskHubSidecarServiceServer
	requests chan *protos.WorkflowRequest
	mu       sync.Mutex
	waiting  map[string]chan *protos.WorkflowResponse
	count    int
}

func startReplayer(t *testing.T) *replayer {
	t.Helper()
	r := &replayer{requests: make(chan *protos.WorkflowRequest), waiting: map[string]chan *protos.WorkflowResponse{}}
	server := grpc.NewServer()
	protos.RegisterTaskHubSidecarServiceServer(server, r)
	listener := bufconn.Listen(1 << 20)
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(listener); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	conn, err := grpc.NewClient("passthrough:///replayer", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	registry := workflow.NewRegistry()
	if err := saga.Register(registry, saga.Partners{Logger: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	work, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	if err := workflow.NewClientWithLogger(conn, quietLog{}).StartWorker(work, registry); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		conn.Close()
		server.Stop()
		serving.Wait()
	})
	return r
}

func (r *replayer) Hello(context.Context, *emptypb.Empty) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, nil
}

func (r *replayer) GetWorkItems(_ *protos.GetWorkItemsRequest, stream protos.TaskHubSidecarService_GetWorkItemsServer) error {
	for {
		select {
		case <-stream.Context().Done():
			return nil
		case request := <-r.requests:
			item := &protos.WorkItem{
				Request:         &protos.WorkItem_WorkflowRequest{WorkflowRequest: request},
				CompletionToken: request.GetInstanceId(),
			}
			if err := stream.Send(item); err != nil {
				return err
			}
		}
	}
}

func (r *replayer) CompleteWorkflowTask(_ context.Context, response *protos.WorkflowResponse) (*protos.CompleteTaskResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if waiting, known := r.waiting[response.GetInstanceId()]; known {
		waiting <- response
		delete(r.waiting, response.GetInstanceId())
	}
	return &protos.CompleteTaskResponse{}, nil
}

func (r *replayer) run(ctx context.Context, past, events []*protos.HistoryEvent) (*protos.WorkflowResponse, error) {
	r.mu.Lock()
	r.count++
	id := fmt.Sprintf("replay-%d", r.count)
	answer := make(chan *protos.WorkflowResponse, 1)
	r.waiting[id] = answer
	r.mu.Unlock()
	select {
	case r.requests <- &protos.WorkflowRequest{InstanceId: id, PastEvents: past, NewEvents: events}:
	case <-ctx.Done():
		return nil, errors.Join(errors.New("no worker accepts the workflow"), ctx.Err())
	}
	select {
	case response := <-answer:
		return response, nil
	case <-ctx.Done():
		return nil, errors.Join(errors.New("the worker does not answer"), ctx.Err())
	}
}
