.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TRAIN_READY := $(VENV)/.train-ready
GEN ?= protos/gen
# Starts without bytecode take seconds longer.
unexport PYTHONDONTWRITEBYTECODE
UV := UV_NO_CONFIG=1 $(BIN)/uv --quiet
LOCK := $(BIN)/uv --quiet pip compile pyproject.toml --all-extras --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --custom-compile-command 'make lock'

.PHONY: help setup lock proto proto-check proto-release fmt lint browser promtool dashboards collector-check test check run bench bench-tail bench-front bench-telemetry train card telemetry clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

setup: $(READY) ## Make the virtual environment from the locked, hashed requirements

$(READY): requirements/bootstrap.txt requirements/dev.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
	@$(UV) pip install --python $(BIN)/python --compile-bytecode --require-hashes -r requirements/dev.txt
	@$(UV) pip install --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

$(TRAIN_READY): $(READY) requirements/train.txt
	@$(UV) pip install --python $(BIN)/python --compile-bytecode --require-hashes -r requirements/train.txt
	@touch $@

lock: ## Lock the requirements anew (the newest versions that pyproject.toml allows)
	@$(LOCK) --upgrade --output-file requirements/run.txt
	@$(LOCK) --upgrade --group dev --constraint requirements/run.txt --output-file requirements/dev.txt
	@$(LOCK) --upgrade --group train --constraint requirements/dev.txt --output-file requirements/train.txt
	@grep -E '^uv==' requirements/dev.txt | cut -d' ' -f1 | $(BIN)/uv --quiet pip compile - --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --custom-compile-command 'make lock' --output-file requirements/bootstrap.txt

proto: $(READY) ## Generate protos/gen from protos/ion
	@rm -rf $(GEN) && mkdir -p $(GEN)
	@PATH=$(abspath $(BIN)):$$PATH $(BIN)/python -m grpc_tools.protoc -I protos \
		--python_out=$(GEN) --grpc_python_out=$(GEN) --mypy_out=quiet:$(GEN) --mypy_grpc_out=quiet,only_async:$(GEN) \
		$$(find protos/ion -name '*.proto' | sort)

proto-check: $(READY) ## Lint the protos, find breaking changes, and stubs that are not what protos/ion generates
	@$(BIN)/buf lint protos
	@$(BIN)/buf breaking protos --against protos/contract.binpb
	@fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT && $(MAKE) --no-print-directory proto GEN="$$fresh" && \
		diff -r -x __pycache__ "$$fresh" protos/gen || { echo 'protos/gen is not what protos/ion generates: make proto' >&2; exit 1; }

proto-release: $(READY) ## Record the protos as the contract that later ones must not break
	@$(BIN)/buf build protos --exclude-source-info --output protos/contract.binpb

fmt: $(READY) ## Format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix-only --quiet .

lint: $(TRAIN_READY) ## Check format, lint rules, types and import contracts
	@$(BIN)/ruff format --check --quiet . || { $(BIN)/ruff format --check .; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

train: $(TRAIN_READY) ## Train the message reader anew from the labelled messages in DATA [WITHOUT=sources or licences] [OUT=file]
	@test -n '$(DATA)' || { echo 'usage: make train DATA=folder-of-labelled-messages' >&2; exit 2; }
	@$(BIN)/python -m router_service.training '$(DATA)' $(foreach name,$(WITHOUT),--without '$(name)') $(if $(OUT),--out '$(OUT)')

card: $(READY) ## Measure the shipped weights with the labelled messages in DATA and fill their model card
	@test -n '$(DATA)' || { echo 'usage: make card DATA=folder-of-labelled-messages' >&2; exit 2; }
	@$(BIN)/python -m bench.card '$(DATA)'

telemetry: $(READY) ## Fill the lists of docs/telemetry.md from chassis/telemetry.py
	@$(BIN)/python -m chassis.observability.documentation

browser: ## Install Debian's Chromium for the tests of the chat page, where it is missing and apt may
	@command -v chromium >/dev/null || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && timeout 300 apt-get -qq update && \
		DEBIAN_FRONTEND=noninteractive timeout 600 apt-get -qq install --yes --no-install-recommends chromium >/dev/null; } || \
		echo 'No Chromium here, and none can be installed: the tests of the chat page will be skipped.' >&2

promtool: $(READY) ## Fetch Debian's Prometheus for the tests of rules and dashboards, where it is missing and apt may
	@command -v promtool >/dev/null && command -v prometheus >/dev/null || test -x $(VENV)/prometheus/usr/bin/promtool || { \
		command -v apt-get >/dev/null && { test "$$(id -u)" != 0 || timeout 300 apt-get -qq update; } && \
		fetched=$$(mktemp -d) && trap 'rm -rf "$$fetched"' EXIT && \
		(cd "$$fetched" && timeout 300 apt-get -qq -o APT::Sandbox::User=root download prometheus) && \
		dpkg-deb -x "$$fetched"/prometheus_*.deb $(VENV)/prometheus; } || \
		echo 'No promtool here, and none can be fetched: the tests of rules, and of dashboards with a Prometheus, will be skipped.' >&2

dashboards: $(READY) ## Write Grafana's dashboards anew from deploy/grafana/*.py
	@$(BIN)/python -m deploy.grafana.dashboards

collector-check: ## Have a collector check its configuration: otelcol-contrib, or the image of docker-compose.yml
	@if command -v otelcol-contrib >/dev/null; then otelcol-contrib validate --config=deploy/otel/collector.yaml; else \
		docker run --rm --volume "$(CURDIR)/deploy/otel:/etc/otel:ro" \
		"$${ION_OTELCOL_IMAGE:-$$(sed -n 's/.*ION_OTELCOL_IMAGE:-\(.*\)}/\1/p' docker-compose.yml)}" \
		validate --config=/etc/otel/collector.yaml; fi || \
		{ echo 'deploy/otel/collector.yaml was not checked, or is not good: see above.' >&2; exit 1; }

test: $(TRAIN_READY) browser promtool ## Run every test against real servers that it starts itself
	@$(BIN)/python -m pytest -n 2 --dist loadfile

check: lint proto-check test ## Everything that must hold before a commit lands

run: $(READY) ## Run ION on 127.0.0.1:8080 with embedded defaults
	@$(BIN)/ion serve

bench: $(READY) ## Measure ION beside an empty chain; results go to bench/results
	@$(BIN)/python -m bench

bench-tail: $(READY) ## Measure the tail of latency, before and after, with outages and overload; results go to bench/results
	@$(BIN)/python -m bench.tail

bench-front: $(READY) ## Measure what the front door costs: cached chats, conversations, streams; results go to bench/results
	@$(BIN)/python -m bench.front

bench-telemetry: $(READY) ## Measure what telemetry costs, with the receiver up, down and slow; results go to bench/results
	@$(BIN)/python -m bench.telemetry

clean: ## Remove the virtual environment and caches
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
