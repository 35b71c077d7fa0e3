package saga_test

import (
	"context"
	"net"
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
	"waybill/services/fulfillment/internal/ledger"
	"waybill/services/fulfillment/internal/partner"
	"waybill/services/fulfillment/internal/saga"
)

// startEngine runs the durable task engine that Dapr itself embeds, in this process, with a worker that knows the saga.
func startEngine(t *testing.T, limits saga.Limits, partners saga.Partners) *workflow.Client {
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
	if err := saga.Register(registry, limits, partners); err != nil {
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

// world is a warehouse, a payment provider and a carrier with real books, and everything that can go wrong between them
// and the saga.
type world struct {
	t      *testing.T
	store  *state.Memory
	stock  *ledger.Inventory
	client *workflow.Client
	starts *saga.Starter
	faults faults
	mu     sync.Mutex
	events []published
}

type published struct {
	id      string
	payload contracts.Payload
}

const initialStock = 10

// quick makes retries as short as a test wants them.
var quick = saga.Limits{Reservation: time.Minute, FirstRetry: time.Millisecond, LastRetry: 2 * time.Millisecond, Attempts: 4, LastingAttempts: 8}

func newWorld(t *testing.T, limits saga.Limits) *world {
	t.Helper()
	w := &world{t: t, store: state.NewMemory(), faults: faults{plan: map[string]*fault{}}}
	w.stock = ledger.NewInventory(w.store, func(context.Context, inventory.Stock) error { return nil }, time.Now)
	for _, product := range []string{"PROD-001", "PROD-002"} {
		if _, err := w.stock.Set(t.Context(), product, initialStock); err != nil {
			t.Fatal(err)
		}
	}
	sagas := ledger.NewSagas(w.store, time.Now)
	w.client = startEngine(t, limits, saga.Partners{
		Payments:  faultyPayments{ledger.NewPayments(w.store, time.Now), &w.faults},
		Inventory: faultyInventory{w.stock, &w.faults},
		Carrier:   faultyCarrier{ledger.NewCarrier(w.store, time.Now), &w.faults},
		Sagas:     sagas, Events: w, Now: time.Now,
	})
	w.starts = saga.NewStarter(w.client, sagas, time.Now)
	return w
}

// Publish keeps the event once, as a consumer would that tells repetitions by the id.
func (w *world) Publish(_ context.Context, id string, payload contracts.Payload) error {
	return w.faults.around("Publish", func() error {
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

// fulfill starts the order's saga and waits for its end.
func (w *world) fulfill(order contracts.Order) saga.Result {
	w.t.Helper()
	if err := w.starts.Start(w.t.Context(), order); err != nil {
		w.t.Fatalf("start: %v", err)
	}
	metadata, err := w.client.WaitForWorkflowCompletion(w.t.Context(), order.OrderID, workflow.WithFetchPayloads(true))
	if err != nil {
		w.t.Fatalf("wait: %v", err)
	}
	var result saga.Result
	decode(w.t, []byte(metadata.Output.GetValue()), &result)
	return result
}

// fault makes calls of one name fail: the first times calls, or all when times is negative, before or after the effect.
type fault struct {
	times int
	after bool
}

type faults struct {
	mu   sync.Mutex
	plan map[string]*fault
}

func (f *faults) set(call string, times int, after bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.plan[call] = &fault{times, after}
}

// next reports whether this call of name fails, and when.
func (f *faults) next(call string) (fails, after bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	planned := f.plan[call]
	if planned == nil || planned.times == 0 {
		return false, false
	}
	planned.times--
	return true, planned.after
}

type planned string

func (p planned) Error() string { return "planned failure of " + string(p) }

func (f *faults) around(call string, effect func() error) error {
	fails, after := f.next(call)
	if fails && !after {
		return planned(call)
	}
	if err := effect(); err != nil {
		return err
	}
	if fails {
		return planned(call)
	}
	return nil
}

type faultyPayments struct {
	saga.Payments
	faults *faults
}

func (p faultyPayments) Charge(ctx context.Context, o contracts.Order, key string) (id string, refused *partner.Reason, err error) {
	err = p.faults.around("Charge", func() error { id, refused, err = p.Payments.Charge(ctx, o, key); return err })
	return id, refused, err
}

func (p faultyPayments) Refund(ctx context.Context, o contracts.Order, key string) (amount contracts.Amount, id string, err error) {
	err = p.faults.around("Refund", func() error { amount, id, err = p.Payments.Refund(ctx, o, key); return err })
	return amount, id, err
}

type faultyInventory struct {
	saga.Inventory
	faults *faults
}

func (i faultyInventory) Reserve(ctx context.Context, o contracts.Order) (refused *partner.Reason, err error) {
	err = i.faults.around("Reserve", func() error { refused, err = i.Inventory.Reserve(ctx, o); return err })
	return refused, err
}

func (i faultyInventory) Release(ctx context.Context, o contracts.Order) (done bool, err error) {
	err = i.faults.around("Release", func() error { done, err = i.Inventory.Release(ctx, o); return err })
	return done, err
}

func (i faultyInventory) Ship(ctx context.Context, o contracts.Order) error {
	return i.faults.around("Ship", func() error { return i.Inventory.Ship(ctx, o) })
}

func (i faultyInventory) Unship(ctx context.Context, o contracts.Order) error {
	return i.faults.around("Unship", func() error { return i.Inventory.Unship(ctx, o) })
}

type faultyCarrier struct {
	saga.Carrier
	faults *faults
}

func (c faultyCarrier) Book(ctx context.Context, o contracts.Order, key string) (s partner.Shipment, refused *partner.Reason, err error) {
	err = c.faults.around("Book", func() error { s, refused, err = c.Carrier.Book(ctx, o, key); return err })
	return s, refused, err
}

func (c faultyCarrier) Cancel(ctx context.Context, o contracts.Order) (done bool, err error) {
	err = c.faults.around("Cancel", func() error { done, err = c.Carrier.Cancel(ctx, o); return err })
	return done, err
}
