package saga_test

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dapr/durabletask-go/backend"
	"github.com/dapr/durabletask-go/backend/sqlite"
	"github.com/dapr/durabletask-go/workflow"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"waybill/contracts"
	"waybill/platform/state"
	"waybill/services/fulfillment/internal/inventory"
	"waybill/services/fulfillment/internal/operations"
	"waybill/services/fulfillment/internal/partner"
	"waybill/services/fulfillment/internal/record"
	"waybill/services/fulfillment/internal/saga"
	"waybill/services/fulfillment/internal/simulator"
	"waybill/services/fulfillment/internal/store"
)

// startEngine runs the durable task engine that Dapr itself embeds, in this process, with a worker that knows the saga.
func startEngine(t *testing.T, partners saga.Partners) *workflow.Client {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	logger := quietLog{}
	be := sqlite.NewSqliteBackend(sqlite.NewSqliteOptions(""), logger)
	executor, register := backend.NewGrpcExecutor(be, logger)
	server := grpc.NewServer()
	register(server)
	hub := backend.NewTaskHubWorker(be,
		backend.NewWorkflowWorker(backend.WorkflowWorkerOptions{Backend: be, Executor: executor, Logger: logger, AppID: "fulfillment"}),
		backend.NewActivityTaskWorker(be, executor, logger), logger)
	if err := hub.Start(ctx); err != nil {
		t.Fatalf("start the engine: %v", err)
	}
	listener := bufconn.Listen(1 << 20)
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(listener); err != nil {
			t.Errorf("serve the engine: %v", err)
		}
	})
	conn, err := grpc.NewClient("passthrough:///engine", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatalf("dial the engine: %v", err)
	}
	registry := workflow.NewRegistry()
	if err := saga.Register(registry, partners); err != nil {
		t.Fatalf("register the saga: %v", err)
	}
	client := workflow.NewClientWithLogger(conn, logger)
	work, stop := context.WithCancel(ctx)
	if err := client.StartWorker(work, registry); err != nil {
		t.Fatalf("start the worker: %v", err)
	}
	t.Cleanup(func() {
		stop()
		conn.Close()
		server.Stop()
		serving.Wait()
		if err := hub.Shutdown(ctx); err != nil {
			t.Errorf("stop the engine: %v", err)
		}
	})
	return client
}

type quietLog struct{}

func (quietLog) Debug(...any)          {}
func (quietLog) Debugf(string, ...any) {}
func (quietLog) Info(...any)           {}
func (quietLog) Infof(string, ...any)  {}
func (quietLog) Warn(...any)           {}
func (quietLog) Warnf(string, ...any)  {}
func (quietLog) Error(...any)          {}
func (quietLog) Errorf(string, ...any) {}

// world has the saga in a real engine, a warehouse, a payment provider and a carrier in memory, and faults that a test plans between
// them and the saga.
type world struct {
	t       *testing.T
	store   *state.Memory
	stock   *store.Inventory
	client  *workflow.Client
	records *store.Sagas
	sagas   *operations.Sagas
	faults  faults
	mu      sync.Mutex
	events  []published
}

type published struct {
	id      string
	payload contracts.Payload
}

const initialStock = 10

// quick makes retries as short as a test wants them.
var quick = saga.Limits{
	ApprovalAboveIn: map[string]contracts.Amount{"USD": 5000_0000, "JPY": 750_000_0000}, ApprovalAbove: 5000_0000, Approval: time.Hour, Reservation: 10 * time.Second,
	FirstRetry: time.Millisecond, LastRetry: 2 * time.Millisecond, Attempts: 4, LastingAttempts: 8,
}

func newWorld(t *testing.T, limits saga.Limits) *world {
	t.Helper()
	return newWorldAt(t, limits, time.Now)
}

// newWorldAt returns a world in which the service's clock is now. The engine has the machine's clock.
func newWorldAt(t *testing.T, limits saga.Limits, now func() time.Time) *world {
	t.Helper()
	w := &world{t: t, store: state.NewMemory(), faults: faults{plan: map[string]*fault{}}}
	w.stock = store.NewInventory(w.store, func(context.Context, inventory.Stock) error { return nil }, now)
	for _, product := range []string{"PROD-001", "PROD-002"} {
		if _, err := w.stock.Set(t.Context(), product, initialStock); err != nil {
			t.Fatal(err)
		}
	}
	w.records = store.NewSagas(w.store, rand.Text(), now)
	logger := slog.New(slog.DiscardHandler)
	w.client = startEngine(t, saga.Partners{
		Payments:  faultyPayments{simulator.NewPayments(w.store, now), &w.faults},
		Inventory: faultyInventory{w.stock, &w.faults},
		Carrier:   faultyCarrier{simulator.NewCarrier(w.store, now), &w.faults},
		Records:   faultyRecords{w.records, &w.faults}, Events: w, Logger: logger, Now: now,
	})
	w.sagas = operations.New(operations.Options{
		Engine: reusing{w.client}, Records: w.records, Events: w, Limits: limits, StuckAfter: time.Minute, Logger: logger, Now: now,
	})
	return w
}

// reusing starts an ended workflow again under the same id, as Dapr does. The engine in this process must purge it first.
type reusing struct{ *workflow.Client }

func (r reusing) TerminateWorkflow(ctx context.Context, id string, options ...workflow.TerminateOptions) error {
	if err := r.Client.TerminateWorkflow(ctx, id, options...); err != nil {
		return err
	}
	if _, err := r.WaitForWorkflowCompletion(ctx, id); err != nil {
		return err
	}
	return r.PurgeWorkflowState(ctx, id, workflow.WithRecursivePurge(true))
}

// lose makes the engine forget the order's saga.
func (w *world) lose(order contracts.Order) error {
	return reusing{w.client}.TerminateWorkflow(w.t.Context(), order.OrderID, workflow.WithRecursiveTerminate(true))
}

// Publish deduplicates events by their id, as consumers do.
func (w *world) Publish(_ context.Context, id string, payload contracts.Payload) error {
	if m, ok := payload.(contracts.NotificationRequested); ok {
		if err, _ := w.faults.next("Publish " + m.Channel); err != nil {
			return err
		}
	}
	return w.faults.around(strings.TrimPrefix(payload.Subject(), "orders/"), "Publish", func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, e := range w.events {
			if e.id == id {
				return nil
			}
		}
		w.events = append(w.events, published{id, payload})
		return nil
	})
}

// PublishAll stops at the first event that fails.
func (w *world) PublishAll(ctx context.Context, events ...saga.Event) error {
	for _, e := range events {
		if err := w.Publish(ctx, e.ID, e.Payload); err != nil {
			return err
		}
	}
	return nil
}

// start starts the order's saga.
func (w *world) start(order contracts.Order) {
	w.t.Helper()
	if err := w.sagas.Start(w.t.Context(), order); err != nil {
		w.t.Fatalf("start: %v", err)
	}
}

// end waits for the end of the order's saga.
func (w *world) end(order contracts.Order) saga.Result {
	w.t.Helper()
	metadata, err := w.client.WaitForWorkflowCompletion(w.t.Context(), order.OrderID, workflow.WithFetchPayloads(true))
	if err != nil {
		w.t.Fatalf("wait: %v", err)
	}
	if metadata.RuntimeStatus != workflow.StatusCompleted {
		w.t.Fatalf("the workflow ended %s: %v", metadata, metadata.FailureDetails)
	}
	var result saga.Result
	decode(w.t, []byte(metadata.Output.GetValue()), &result)
	return result
}

func (w *world) fulfill(order contracts.Order) saga.Result {
	w.t.Helper()
	w.start(order)
	return w.end(order)
}

// until waits until the order's saga record meets a condition.
func (w *world) until(order contracts.Order, what string, condition func(s *record.Saga) bool) record.Saga {
	w.t.Helper()
	for {
		e, err := w.records.Get(w.t.Context(), order.OrderID)
		if err == nil && condition(&e) {
			return e
		}
		select {
		case <-w.t.Context().Done():
			w.t.Fatalf("waited for %s in vain; the record is %+v, %v", what, e, err)
		case <-time.After(time.Millisecond):
		}
	}
}

// fault makes the next calls of one name fail, before or after their effect: as many as times, or all if times is negative.
type fault struct {
	times int
	after bool
	// busy says that the calls find no free slot instead.
	busy bool
	// hook, if it is set, is called once before the effect, and the call does not fail.
	hook func() error
}

type faults struct {
	mu   sync.Mutex
	plan map[string]*fault
}

func (f *faults) set(call string, times int, after bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.plan[call] = &fault{times: times, after: after}
}

// busy makes the next calls find no free slot.
func (f *faults) busy(call string, times int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.plan[call] = &fault{times: times, busy: true}
}

// of is the name of the calls for one order, for set and hook.
func of(orderID, call string) string { return orderID + "/" + call }

// hook calls hook during the next call of that name.
func (f *faults) hook(call string, hook func() error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.plan[call] = &fault{hook: hook}
}

// runHook calls the hook of this call, if it has one.
func (f *faults) runHook(call string) error {
	f.mu.Lock()
	planned := f.plan[call]
	if planned == nil || planned.hook == nil {
		f.mu.Unlock()
		return nil
	}
	hook := planned.hook
	planned.hook = nil
	f.mu.Unlock()
	return hook()
}

// next returns the error of this call, nil if it succeeds, and whether it fails after its effect.
func (f *faults) next(call string) (err error, after bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fault := f.plan[call]
	if fault == nil || fault.times == 0 {
		return nil, false
	}
	fault.times--
	if fault.busy {
		return partner.ErrBusy, false
	}
	return planned(call), fault.after
}

type planned string

func (p planned) Error() string { return "planned failure of " + string(p) }

func (f *faults) around(orderID, call string, effect func() error) error {
	for _, planned := range []string{call, of(orderID, call)} {
		if err := f.runHook(planned); err != nil {
			return err
		}
	}
	failure, after := f.next(call)
	if failure == nil {
		failure, after = f.next(of(orderID, call))
	}
	if failure != nil && !after {
		return failure
	}
	if err := effect(); err != nil {
		return err
	}
	return failure
}

type faultyRecords struct {
	saga.Records
	faults *faults
}

func (j faultyRecords) Change(ctx context.Context, id string, change func(*record.Saga) (bool, error)) (e record.Saga, err error) {
	err = j.faults.around(id, "Change", func() error { e, err = j.Records.Change(ctx, id, change); return err })
	return e, err
}

func (j faultyRecords) Read(ctx context.Context, id string) (record.Saga, record.Change, error) {
	e, change, err := j.Records.Read(ctx, id)
	return e, func(alter func(*record.Saga) (bool, error)) (e record.Saga, err error) {
		err = j.faults.around(id, "Change", func() error { e, err = change(alter); return err })
		return e, err
	}, err
}

type faultyPayments struct {
	saga.Payments
	faults *faults
}

func (p faultyPayments) Charge(ctx context.Context, o contracts.Order, key string) (id string, refused *partner.Reason, err error) {
	err = p.faults.around(o.OrderID, "Charge", func() error { id, refused, err = p.Payments.Charge(ctx, o, key); return err })
	return id, refused, err
}

func (p faultyPayments) Refund(ctx context.Context, o contracts.Order, key string) (amount contracts.Amount, id string, err error) {
	err = p.faults.around(o.OrderID, "Refund", func() error { amount, id, err = p.Payments.Refund(ctx, o, key); return err })
	return amount, id, err
}

type faultyInventory struct {
	saga.Inventory
	faults *faults
}

func (i faultyInventory) Reserve(ctx context.Context, o contracts.Order) (refused *partner.Reason, err error) {
	err = i.faults.around(o.OrderID, "Reserve", func() error { refused, err = i.Inventory.Reserve(ctx, o); return err })
	return refused, err
}

func (i faultyInventory) Release(ctx context.Context, o contracts.Order) (done bool, err error) {
	err = i.faults.around(o.OrderID, "Release", func() error { done, err = i.Inventory.Release(ctx, o); return err })
	return done, err
}

func (i faultyInventory) Ship(ctx context.Context, o contracts.Order) error {
	return i.faults.around(o.OrderID, "Ship", func() error { return i.Inventory.Ship(ctx, o) })
}

func (i faultyInventory) Unship(ctx context.Context, o contracts.Order) error {
	return i.faults.around(o.OrderID, "Unship", func() error { return i.Inventory.Unship(ctx, o) })
}

type faultyCarrier struct {
	saga.Carrier
	faults *faults
}

func (c faultyCarrier) Book(ctx context.Context, o contracts.Order, key string) (s partner.Shipment, refused *partner.Reason, err error) {
	err = c.faults.around(o.OrderID, "Book", func() error { s, refused, err = c.Carrier.Book(ctx, o, key); return err })
	return s, refused, err
}

func (c faultyCarrier) Cancel(ctx context.Context, o contracts.Order) (done bool, err error) {
	err = c.faults.around(o.OrderID, "Cancel", func() error { done, err = c.Carrier.Cancel(ctx, o); return err })
	return done, err
}

// newReconciler returns a reconciler for passes on demand.
func newReconciler(sagas *operations.Sagas, grace, lostAfter time.Duration) *operations.Reconciler {
	r, err := operations.NewReconciler(sagas, operations.ReconcilerOptions{Interval: time.Nanosecond, Grace: grace, LostAfter: lostAfter})
	if err != nil {
		panic(err)
	}
	return r
}
