package kusto_test

import (
	"bufio"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azqueue"
	queuesas "github.com/Azure/azure-sdk-for-go/sdk/storage/azqueue/sas"
)

// The account that Azurite, Microsoft's storage emulator, has by default; its key is public.
const (
	account    = "devstoreaccount1"
	accountKey = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)

// azurite is a running emulator, with TLS before it: the client takes no storage without.
type azurite struct {
	blobs, queues string // addresses as Azurite says them
	blobsTLS      *httptest.Server
	queuesTLS     *httptest.Server
	made          atomic.Int64
}

var listening = regexp.MustCompile(`Azurite (Blob|Queue) service successfully listens on (http://\S+)|Azurite (Blob|Queue) service is successfully listening at (http://\S+)`)

// startAzurite starts the program that the variable AZURITE names, and skips the test where there is none.
func startAzurite(t *testing.T) *azurite {
	t.Helper()
	program := os.Getenv("AZURITE")
	if program == "" {
		if found, err := exec.LookPath("azurite"); err == nil {
			program = found
		}
	}
	if program == "" {
		t.Skip("there is no Azurite, so queued ingestion is not tested: npm install azurite in some folder, and run with AZURITE=<folder>/node_modules/.bin/azurite")
	}
	cmd := exec.CommandContext(t.Context(), program, "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--disableProductStyleUrl",
		"--blobHost", "127.0.0.1", "--queueHost", "127.0.0.1", "--tableHost", "127.0.0.1", "--blobPort", "0", "--queuePort", "0", "--tablePort", "0")
	cmd.Dir = t.TempDir()
	cmd.Stderr = os.Stderr
	cmd.WaitDelay = 10 * time.Second
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
	a := &azurite{}
	var said strings.Builder
	for lines := bufio.NewScanner(out); (a.blobs == "" || a.queues == "") && lines.Scan(); {
		said.WriteString(lines.Text() + "\n")
		m := listening.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		switch m[1] + m[3] {
		case "Blob":
			a.blobs = m[2] + m[4]
		case "Queue":
			a.queues = m[2] + m[4]
		}
	}
	if a.blobs == "" || a.queues == "" {
		t.Fatalf("Azurite did not say where it listens:\n%s", said.String())
	}
	front := func(address string) *httptest.Server {
		target, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		s := httptest.NewTLSServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }})
		t.Cleanup(s.Close)
		return s
	}
	a.blobsTLS, a.queuesTLS = front(a.blobs), front(a.queues)
	return a
}

// storage is one cluster's container and queue.
type storage struct {
	container, queue string // addresses with signatures, as the cluster gives them to clients
	messages         *azqueue.QueueClient
	client           *http.Client
}

func (a *azurite) storage(t *testing.T) *storage {
	t.Helper()
	name := fmt.Sprintf("ingest%d", a.made.Add(1))
	end := time.Now().Add(time.Hour)

	blobKey, err := azblob.NewSharedKeyCredential(account, accountKey)
	if err != nil {
		t.Fatal(err)
	}
	blobs, err := azblob.NewClientWithSharedKeyCredential(a.blobs+"/"+account, blobKey, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := blobs.CreateContainer(t.Context(), name, nil); err != nil {
		t.Fatal(err)
	}
	blobPermissions := sas.AccountPermissions{Read: true, Write: true, Create: true, Delete: true}
	blobTypes := sas.AccountResourceTypes{Container: true, Object: true}
	blobSignature, err := sas.AccountSignatureValues{Protocol: sas.ProtocolHTTPSandHTTP, ExpiryTime: end, Permissions: blobPermissions.String(), ResourceTypes: blobTypes.String()}.SignWithSharedKey(blobKey)
	if err != nil {
		t.Fatal(err)
	}

	queueKey, err := azqueue.NewSharedKeyCredential(account, accountKey)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := azqueue.NewQueueClientWithSharedKeyCredential(a.queues+"/"+account+"/"+name, queueKey, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := messages.Create(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	queuePermissions := queuesas.AccountPermissions{Add: true}
	queueTypes := queuesas.AccountResourceTypes{Container: true, Object: true}
	queueSignature, err := queuesas.AccountSignatureValues{Protocol: queuesas.ProtocolHTTPSandHTTP, ExpiryTime: end, Permissions: queuePermissions.String(), ResourceTypes: queueTypes.String()}.SignWithSharedKey(queueKey)
	if err != nil {
		t.Fatal(err)
	}
	return &storage{
		container: fmt.Sprintf("%s/%s/%s?%s", a.blobsTLS.URL, account, name, blobSignature.Encode()),
		queue:     fmt.Sprintf("%s/%s/%s?%s", a.queuesTLS.URL, account, name, queueSignature.Encode()),
		messages:  messages,
		client:    a.blobsTLS.Client(),
	}
}

// next takes a message from the queue, or answers "" when there is none.
func (s *storage) next(ctx context.Context) (string, error) {
	got, err := s.messages.DequeueMessage(ctx, nil)
	if err != nil || len(got.Messages) == 0 {
		return "", err
	}
	m := got.Messages[0]
	_, err = s.messages.DeleteMessage(ctx, *m.MessageID, *m.PopReceipt, nil)
	return *m.MessageText, err
}

// blob reads a compressed blob with the signature that its address carries.
func (s *storage) blob(ctx context.Context, address string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	resp, err := s.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("read blob %s: %s", address, resp.Status)
	}
	plain, err := gzip.NewReader(resp.Body)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(plain)
}
