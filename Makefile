# Needs Python 3.11 or newer, make and git; everything else comes from the lock files.
# ARGS passes options on:  make up ARGS="--port 9000",  make test ARGS="tests/unit -k limits"

SHELL := /bin/sh
VENV := .venv
ENGINE_VENV := .venv-engine
CLOUDS_VENV := .venv-clouds
ETCD := .etcd
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
ARGS :=

.DEFAULT_GOAL := help
.PHONY: help setup up test test-clouds test-nightly test-engine lint format bench bench-guard bench-planner docs lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  \033[1m%-12s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/dev.stamp ## Install everything for development into .venv

up: $(VENV)/runtime.stamp ## Run the whole cloud here, on one port; Ctrl-C stops it
# With job control a terminal's Ctrl-C goes to the cloud alone, which drains and exits 0, and not to make.
	@if [ -t 0 ]; then set -m; fi; $(BIN)/crosslogic up $(ARGS)

test: $(VENV)/dev.stamp ## Run every test, on real PostgreSQL, Redis and etcd
	@tools/etcd/install.sh $(ETCD)
	$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

test-nightly: $(VENV)/dev.stamp ## Try each property of money and metering 10,000 times (hours)
	HYPOTHESIS_PROFILE=nightly $(BIN)/python -m pytest --timeout 0 tests/property $(ARGS)

test-clouds: $(VENV)/dev.stamp ## Fetch weights from servers that speak S3, Google Cloud Storage and Azure (installs 550 MB)
	@tools/clouds/install.sh $(CLOUDS_VENV)
	$(BIN)/python -m pytest tests/contract/test_agent_weights_clouds.py $(ARGS)

test-engine: $(VENV)/dev.stamp ## Run the tests that need real vLLM servers, on the CPU (installs 2.1 GB)
	@tools/engine/install.sh $(ENGINE_VENV)
	$(BIN)/python -m pytest -p tests.engine.servers -m engine tests/contract/test_engine.py tests/engine $(ARGS)

lint: $(VENV)/dev.stamp ## Check style, types and the direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(VENV)/dev.stamp ## Format the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(VENV)/dev.stamp ## Measure us beside the peers, into bench/results
	$(BIN)/python -m bench $(ARGS)

bench-guard: $(VENV)/dev.stamp ## Fail when a request costs more than bench/guard.json allows
	$(BIN)/python -m bench --guard

bench-planner: $(VENV)/dev.stamp ## Measure how right the planner is, into docs/planner.md
	$(BIN)/python -m bench.planner

docs: $(VENV)/runtime.stamp ## Write the generated pages of docs/
	$(BIN)/python tools/write_docs.py

lock: ## Resolve the dependencies of pyproject.toml into the lock files anew
	tools/lock.sh

clean: ## Remove what was installed here; data of `make up` stays
	rm -rf $(VENV) $(ENGINE_VENV) $(CLOUDS_VENV) $(ETCD)

# The two stamps say what is installed, so that a second call costs nothing.
$(VENV)/runtime.stamp: requirements.lock pyproject.toml | $(BIN)/python
	$(call install,requirements.lock)
	@touch $@

$(VENV)/dev.stamp: requirements-dev.lock requirements.lock pyproject.toml | $(BIN)/python
	$(call install,requirements-dev.lock)
	@touch $(VENV)/runtime.stamp $@

# All is compiled now, so that the first start is as quick as the next, also where Python may not write later.
define install
	@echo "installing $(1) ..."
	@$(PIP) install --quiet --require-hashes -r $(1)
	@$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@$(BIN)/python -m compileall -q src
endef

$(BIN)/python:
	@tools/make_venv.sh $(VENV) $(PYTHON)
