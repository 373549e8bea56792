# Cordon. `make run` shows it, `make test` proves it, `make help` lists the rest.

SHELL      := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
GO         ?= go
VERSION    ?= $(shell git describe --always --dirty 2>/dev/null || echo dev)
TOOLS      := $(CURDIR)/.tools
LINT       := $(TOOLS)/golangci-lint
LINT_VERSION := v2.15.0
ENGINE     := deploy/engine/node_modules/.package-lock.json
UI_DEPS    := web/ui/node_modules/.package-lock.json
UI         := web/static/dist/index.html
CHROMIUM   ?= $(or $(wildcard /usr/bin/chromium),$(wildcard /usr/bin/chromium-browser),$(wildcard /usr/bin/google-chrome),/usr/bin/chromium)
PACKAGES   := ./...
export GOFLAGS := -buildvcs=false
export GOTOOLCHAIN := local
export PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD := 1

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: build ## build, start everything embedded and show a live demo fleet
	bin/cordon up --demo

.PHONY: build
build: $(ENGINE) $(UI) ## build bin/cordon with the dashboard in it
	$(GO) build -ldflags "-s -w -X cordon/internal/cli.Version=$(VERSION)" -o bin/cordon .

.PHONY: test
test: check unit race e2e browser ## everything: lint, unit, race, end to end, browser, fuzz seeds

.PHONY: check
check: $(LINT) $(UI_DEPS) ## formatting, vet, lint, types, generated files
	$(LINT) config verify
	$(LINT) fmt --diff
	$(GO) vet $(PACKAGES)
	$(LINT) run
	cd web/ui && npm run --silent check

# Packages that start goroutines are tested under the race detector, the
# others without: each test runs once.
RACE := ./ingest ./ingest/gate/... ./detect ./alert/... ./web/... ./internal/bus/... ./internal/identity/... ./internal/operator/... ./internal/agent/... ./internal/simulate/... ./internal/app/...

.PHONY: unit
unit: $(ENGINE) $(UI_DEPS) ## tests with the real broker and engine; fuzz seeds
	$(GO) test -timeout 8m $$(comm -23 <($(GO) list $(PACKAGES) | grep -v /internal/e2e | sort) <($(GO) list $(RACE) | sort))
	cd web/ui && npm test --silent

.PHONY: race
race: $(ENGINE) ## tests of concurrent packages under the race detector
	$(GO) test -race -short -timeout 9m $(RACE)

.PHONY: e2e
e2e: build ## the whole system: real processes, real devices, kill -9
	CORDON_BINARY=$(CURDIR)/bin/cordon $(GO) test -count=1 -timeout 8m ./internal/e2e/...

.PHONY: browser
browser: build $(UI_DEPS) chromium ## the dashboard in headless Chromium
	CHROMIUM=$(CHROMIUM) deploy/scripts/with-demo web/ui

.PHONY: chromium
chromium: ## install Chromium with apt when there is none
	@test -x "$(CHROMIUM)" || { echo "Chromium is missing: installing it with apt"; \
		$$(test $$(id -u) = 0 || echo sudo) apt-get update -qq && \
		$$(test $$(id -u) = 0 || echo sudo) apt-get install -y -qq --no-install-recommends chromium; }

.PHONY: bench
bench: $(ENGINE) ## Go benchmarks
	$(GO) test -run '^$$' -bench . -benchmem ./ingest/... ./detect/... ./internal/store/...

.PHONY: soak
soak: build ## the long suites
	CORDON_SOAK=1 CORDON_BINARY=$(CURDIR)/bin/cordon $(GO) test -count=1 -timeout 60m ./...

.PHONY: fmt
fmt: $(LINT) ## format the Go sources
	$(LINT) fmt

.PHONY: clean
clean: ## remove what was built
	rm -rf bin .tools web/static/dist/assets web/static/dist/index.html deploy/engine/node_modules web/ui/node_modules

$(LINT): Makefile
	GOBIN=$(TOOLS) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)
	@touch $@

$(ENGINE): deploy/engine/package-lock.json
	cd deploy/engine && npm ci --no-audit --no-fund
	@touch $@

$(UI_DEPS): web/ui/package-lock.json
	cd web/ui && npm ci --no-audit --no-fund
	@touch $@

$(UI): $(UI_DEPS) $(shell find web/ui/src web/ui/index.html web/ui/vite.config.ts -type f 2>/dev/null)
	cd web/ui && npm run --silent build
	@touch $@
