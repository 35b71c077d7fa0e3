# Waybill. `make help` lists the targets.

MODULES := contracts platform services/orders services/fulfillment services/notifications services/analytics devrun tests tests/containers tests/truth
BIN     := .waybill/bin
DEVRUN  := $(BIN)/devrun

GOLANGCI_LINT := v2.15.0
GOVULNCHECK   := v1.9.0

# Every module is built and tested separately, as its users would, and not through go.work.
export GOWORK := off
export CGO_ENABLED ?= 0

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: up
up: $(DEVRUN) ## Run the whole system on this machine until Ctrl-C (the first run builds Dapr, which takes minutes)
	@exec $(DEVRUN) up

.PHONY: broker
broker: $(DEVRUN) ## Run the embedded broker and the inbox alone, for `dapr run -f .` with the Dapr CLI
	@exec $(DEVRUN) broker

.PHONY: inbox
inbox: $(DEVRUN) ## Show the email, SMS and push messages that customers got (ARGS="--follow", ARGS="--order <id>")
	@exec $(DEVRUN) inbox $(ARGS)

.PHONY: demo
demo: $(DEVRUN) ## Place orders on a running `make up`, one for every way in which an order can end, and show their steps
	@exec $(DEVRUN) demo

.PHONY: record-demo
record-demo: $(DEVRUN) ## Run the demo on a running `make up`, and draw it again for the README (docs/demo.svg)
	@$(DEVRUN) demo > $(BIN)/demo.txt
	@cd tests && go run ./recording -write ../docs/demo.svg < ../$(BIN)/demo.txt

.PHONY: doctor
doctor: ## Compare what the services hold, on a running or stopped system, and name every difference (ARGS="--json", ARGS="--orders http://...")
	@mkdir -p $(BIN)
	@[ -x $(BIN)/doctor ] || echo "building the doctor: a minute the first time"
	@cd devrun && go build -o ../$(BIN)/doctor ./doctor && cd .. && exec $(BIN)/doctor $(ARGS)

.PHONY: images
images: $(DEVRUN) ## Make the container images, each with its SBOM (needs Docker, and no registry)
	@exec $(DEVRUN) images $(ARGS)

.PHONY: compose-up
compose-up: $(DEVRUN) ## Run the whole system in containers, with the images of `make images`
	@exec $(DEVRUN) compose up

.PHONY: compose-down
compose-down: $(DEVRUN) ## Stop and remove the containers, their networks and their data
	@exec $(DEVRUN) compose down

.PHONY: compose-inbox
compose-inbox: ## Show the email and SMS that customers of the system in containers got (ARGS="--order <id>")
	@docker exec "$$(docker ps -q --filter label=com.docker.compose.project=waybill --filter label=com.docker.compose.service=inbox)" /devrun inbox --data /data $(ARGS)

.PHONY: build
build: ## Compile every module
	@for m in $(MODULES); do echo "== build $$m"; (cd $$m && go build ./...) || exit 1; done

.PHONY: test
test: test-unit test-e2e ## Run all tests: every module's own, then the whole system on real Dapr, on free ports

.PHONY: test-unit
test-unit: ## Run every module's own tests, including the saga on the real durable engine
	@for m in $(filter-out tests%,$(MODULES)); do echo "== $$m"; (cd $$m && go test ./...) || exit 1; done
	@echo "== tests/static"; cd tests && go test -count=1 ./static/... # these tests read files outside of their module, which the test cache does not see

.PHONY: test-race
test-race: export CGO_ENABLED = 1
test-race: ## Run every module's own tests under the race detector (needs a C compiler)
	@for m in $(filter-out tests%,$(MODULES)); do echo "== $$m"; (cd $$m && go test -race ./...) || exit 1; done

.PHONY: test-e2e
test-e2e: runtime ## Run the end-to-end tests, which kill the real processes one after the other
	@echo "== tests"
	@cd tests && go test -count=1 -timeout 20m ./...

.PHONY: test-containers
test-containers: $(DEVRUN) ## Make the images, run the whole system in containers, and break it on purpose (needs Docker)
	@$(DEVRUN) images
	@echo "== tests/containers"
	@cd tests/containers && go test -count=1 -timeout 15m -v ./...

.PHONY: test-chaos
test-chaos: runtime test-events ## Kill every process at every step of the saga, and write that part of docs/failure-matrix.md (15 minutes)
	@cd tests && go test -count=1 -timeout 90m -run 'TestFailureMatrix$$' ./e2e -matrix all -matrix.page $(CURDIR)/docs/failure-matrix.md -v

.PHONY: test-faults
test-faults: runtime ## Stop every process for 40 s, fill every disk, with orders in flight, and write those parts of docs/failure-matrix.md (15 minutes)
	@cd tests && go test -count=1 -timeout 45m -run 'TestStoppedAndFull$$' ./e2e -matrix stop -matrix.page $(CURDIR)/docs/failure-matrix.md -v
	@cd tests && go test -count=1 -timeout 45m -run 'TestStoppedAndFull$$' ./e2e -matrix disk -matrix.page $(CURDIR)/docs/failure-matrix.md -v

.PHONY: test-events
test-events: runtime ## Send analytics 200,000 events with known results, and compare its answers (a minute)
	@cd tests && go test -count=1 -timeout 30m -run 'TestAStreamOfWhichEverythingIsKnown$$' ./e2e -analytics all -v

# schemathesis and its dependencies, each in one version. requirements.in says how to update the list.
PYTHON := $(CURDIR)/.waybill/python

.PHONY: python
python:
	@mkdir -p $(dir $(PYTHON))
	@cmp -s tests/api/requirements.txt $(PYTHON)/installed.txt || { \
		python3 -m venv --clear $(PYTHON) && $(PYTHON)/bin/pip install --quiet --disable-pip-version-check --no-deps -r tests/api/requirements.txt && \
		cp tests/api/requirements.txt $(PYTHON)/installed.txt; }

.PHONY: test-api
test-api: runtime python ## Compare the services with their OpenAPI descriptions (needs Python; ARGS="-examples 300 -seed 1 -service orders")
	@cd tests && go test -count=1 -timeout 60m -v ./api -schemathesis $(PYTHON)/bin/schemathesis $(ARGS)

# What the tests of Azure Data Explorer and of the infrastructure need besides Go. Without it those tests are skipped.
AZURITE_VERSION         := 3.35.0
KUSTO_LANGUAGE_VERSION  := 12.4.1
TREE_SITTER_VERSION     := 0.25.10
BICEP_GRAMMAR_VERSION   := 1.1.0
NPM  := $(CURDIR)/.waybill/npm
NPMS := azurite@$(AZURITE_VERSION) @kusto/language-service-next@$(KUSTO_LANGUAGE_VERSION) \
	web-tree-sitter@$(TREE_SITTER_VERSION) tree-sitter-bicep@$(BICEP_GRAMMAR_VERSION)

# No script of these packages runs at installation: tree-sitter-bicep would compile a parser that is not needed.
.PHONY: npm
npm:
	@mkdir -p $(NPM)
	@[ "$$(cat $(NPM)/installed 2>/dev/null)" = "$(NPMS)" ] || { \
		npm install --prefix $(NPM) --ignore-scripts --no-audit --no-fund --silent $(NPMS) && echo "$(NPMS)" > $(NPM)/installed; }

.PHONY: test-kusto
test-kusto: export AZURITE := $(NPM)/node_modules/.bin/azurite
test-kusto: export KUSTO_LANGUAGE := $(NPM)/node_modules/@kusto/language-service-next
test-kusto: npm ## Test the Azure Data Explorer adapter with Azurite and Microsoft's KQL parser (needs npm)
	@cd services/analytics && go test -count=1 $(ARGS) ./internal/store/kusto

.PHONY: test-infra
test-infra: export NODE_MODULES := $(NPM)/node_modules
test-infra: export KUSTO_LANGUAGE := $(NPM)/node_modules/@kusto/language-service-next
test-infra: npm ## Test the infrastructure without Azure: Bicep, KQL, shell scripts, and names (needs npm and shellcheck)
	@shellcheck $$(git grep -lE '^#!/bin/(ba)?sh' -- ':!*_test.go')
	@cd services/analytics && go test -count=1 -run 'TestSchema$$' ./internal/store/kusto
	@cd tests && go test -count=1 ./internal/bicep ./static/infra

.PHONY: bench
bench: runtime ## Measure orders and events, alternating with bare Dapr (ARGS=-quick: two minutes instead of eight)
	@cd tests && go build -o ../$(BIN)/bench ./bench && cd .. && exec $(BIN)/bench $(ARGS)

.PHONY: test-soak
test-soak: runtime ## Load the system for 12 minutes, and fail if memory, disk, rows, jobs or latency grow (ARGS=-quick: 2 minutes)
	@cd tests && go build -o ../$(BIN)/soak ./soak && cd .. && exec $(BIN)/soak $(ARGS)

.PHONY: test-overload
test-overload: runtime ## Offer ten times the capacity in five shapes, and check goodput, orders, memory and ledgers (ARGS=-quick: 2 minutes)
	@cd tests && go build -o ../$(BIN)/overload ./overload && cd .. && exec $(BIN)/overload $(ARGS)

.PHONY: bench-pipeline
bench-pipeline: ## Measure the pipeline of analytics alone, in process on one processor (two minutes)
	@cd services/analytics && go test -run '^$$' -bench 'Pipeline$$|Add$$' -cpu 1 -count 8 -benchtime 1000000x $(ARGS) ./internal/pipeline

.PHONY: runtime
runtime: $(DEVRUN) ## Build the pinned Dapr runtime, if it is missing
	@$(DEVRUN) build

.PHONY: lint
lint: $(BIN)/golangci-lint-$(GOLANGCI_LINT) ## Check style and generated files
	@for m in $(MODULES); do echo "== lint $$m"; (cd $$m && $(CURDIR)/$< run --config $(CURDIR)/.golangci.yml ./...) || exit 1; done
	@./hack/check-generated

.PHONY: vuln
vuln: ## Find known vulnerabilities in what is built (asks the Go vulnerability database)
	@for m in $(MODULES); do echo "== vuln $$m"; (cd $$m && go run golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK) ./...) || exit 1; done

.PHONY: generate
generate: ## Write the generated files: schemas, samples, docs/events.md, docs/configuration.md, the emulators' topics
	@cd contracts && go generate ./...
	@cd tests && go test -count=1 -run 'TestTheSettingsAreDocumented$$' ./static -update

.PHONY: tidy
tidy: ## Bring every go.mod and go.sum up to date
	@for m in $(MODULES) devrun/runtime; do (cd $$m && go mod tidy) || exit 1; done

.PHONY: clean
clean: ## Remove everything that was built, stored and logged here, unless the system is running
	@./hack/clean

.PHONY: $(DEVRUN)
$(DEVRUN):
	@command -v go >/dev/null || { echo "Go is needed, in the version of devrun/go.mod or newer: https://go.dev/dl" >&2; exit 1; }
	@mkdir -p $(BIN)
	@[ -x $@ ] || echo "building the local runner: a minute or two the first time"
	@cd devrun && go build -o ../$@ .

$(BIN)/golangci-lint-$(GOLANGCI_LINT):
	@mkdir -p $(BIN)
	@echo "building golangci-lint $(GOLANGCI_LINT): minutes the first time"
	@GOBIN=$(CURDIR)/$(BIN) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT)
	@mv $(BIN)/golangci-lint $@
