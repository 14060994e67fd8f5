# The project's commands. `make help` lists them; PIP_ARGS passes options to pip (an index of your own, say).
SHELL := /bin/bash
PYTHON ?= python3
PIP_ARGS ?=
RECIPE ?=
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export OMP_WAIT_POLICY := PASSIVE
export DVC_NO_ANALYTICS := 1
export DVC_SITE_CACHE_DIR := $(CURDIR)/.dvc/tmp/site
export MLFLOW_DISABLE_TELEMETRY := true
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := true
export PREFECT_HOME := $(CURDIR)/.prefect
# Nothing is written to the home folder: what libraries keep there goes into the project.
export XDG_CACHE_HOME := $(CURDIR)/.limbeck/cache
export XDG_CONFIG_HOME := $(CURDIR)/.limbeck/config
export MPLCONFIGDIR := $(CURDIR)/.limbeck/matplotlib

.PHONY: help run test test-slow check ui up bench clean
help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /|/' | awk -F'|' '{printf "  make %-10s %s\n", $$1, $$2}'

.venv/installed: pyproject.toml constraints.txt
	@echo "Installing the pipeline into .venv: about 2.1 GB with a CPU build of torch (see PIP_ARGS in README.md), 2-4 minutes, once."
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "Limbeck needs Python 3.11 to 3.13, found $$($(PYTHON) --version). Next: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-cache-dir $(PIP_ARGS) -c constraints.txt -e '.[pipeline,dev]'
	@touch $@

run: .venv/installed  ## install what is missing, run the pipeline as a flow (RECIPE=name for another task)
	@python -m flows.compress $(if $(RECIPE),--recipe $(RECIPE))

test: .venv/installed  ## the tests everybody runs, under five minutes on two cores
	@python -m pytest -n 3 --dist loadfile -m "not slow"

test-slow: .venv/installed  ## drills: kills, outages, whole pipelines in fresh clones
	@python -m pytest -m slow

check: .venv/installed  ## lint, types, layers
	@ruff check --no-cache . && ruff format --no-cache --check . && mypy && lint-imports --no-cache

ui: .venv/installed  ## MLflow and Prefect on loopback, until interrupted
	@exec python -m flows.services.servers

up: .venv/installed  ## the same and a worker: does what prefect.yaml says, and when data lands, until interrupted
	@exec python -m flows.services.servers --worker

bench: .venv/installed  ## measure Limbeck against its floors; results/*.json
	@python -m benchmarks

clean:  ## remove what runs leave; keep .venv, work/, the registry, its ledger, what awaits it, DVC's cache
	@find .limbeck -mindepth 1 -maxdepth 1 -not -name spool -exec rm -rf {} + 2>/dev/null || true
	@rm -rf .prefect reports .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
