# `make` alone says what there is. Nothing here needs root or a running service.

VENV := .venv
PY := $(VENV)/bin/python
TEST ?=
SEEDS ?= 20
DAYS ?= 1
PART ?=
MINUTES ?= 10
SEED ?= 1

# Wheels only: building a source distribution would fetch build tools that no hash covers.
PIP := $(PY) -m pip --disable-pip-version-check install -qq --require-hashes --only-binary=:all:
SELF := $(PY) -m pip --disable-pip-version-check install -qq --no-deps --no-build-isolation --no-index -e .
CODE := orchestrator backends jobs tests $(wildcard benchmarks)
LOCK := --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header --quiet

.PHONY: help setup runtime run test unit lint bench soak lock clean
.DEFAULT_GOAL := help

help: ## say what there is
	@sed -n 's/^\([a-z]*\):[^#]*## /  make \1\t/p' Makefile | expand -t 18

setup: $(VENV)/.dev ## create .venv with everything, tests and linters included

runtime: $(VENV)/.run ## create .venv with only what the daemon needs

run: $(VENV)/.run ## start the daemon on ./aion.toml, or the demo world if there is none
	@if [ -f aion.toml ]; then \
	  echo 'Starting the daemon on ./aion.toml; Ctrl-C ends it. In another terminal:'; \
	  echo '  $(VENV)/bin/aion status     who serves what'; \
	  echo '  $(VENV)/bin/aion explain    why this one'; \
	  echo '  $(VENV)/bin/aion doctor     is everything it depends on in order'; \
	  exec $(VENV)/bin/aion serve --config aion.toml; \
	else \
	  echo 'No aion.toml here: starting the demo world; Ctrl-C ends it.'; \
	  echo 'Your own configuration: $(VENV)/bin/aion init'; \
	  exec $(VENV)/bin/aion demo; \
	fi

test: lint unit ## lint, types, layers and all tests

unit: $(VENV)/.dev ## the tests alone; TEST="tests/core -k choose" for some of them
	$(PY) -m pytest $(TEST)

lint: $(VENV)/.dev ## lint, format, types, layers
	$(PY) -m ruff check $(CODE)
	$(PY) -m ruff format --check $(CODE)
	$(PY) -m mypy
	$(VENV)/bin/lint-imports

bench: $(VENV)/.dev ## measure speed and memory against the committed figures; PART="store turns" for some
	$(PY) -m benchmarks $(PART)

soak: $(VENV)/.dev ## kill, freeze and cut off for MINUTES=10 and see that it holds; SEED=1
	$(PY) -m tests.e2e.soak --minutes $(MINUTES) --seed $(SEED)

simulate: $(VENV)/.dev ## weeks of failures in virtual time; SEEDS=200 DAYS=1
	$(PY) -m tests.simulation --seeds $(SEEDS) --days $(DAYS)

lock: ## compute both lock files anew (needs uv)
	@command -v uv >/dev/null || { echo 'make lock needs uv: pip install uv' >&2; exit 1; }
	uv pip compile $(LOCK) --extra build pyproject.toml -o requirements.lock
	uv pip compile $(LOCK) --extra build --extra dev -c requirements.lock pyproject.toml -o requirements-dev.lock

clean: ## remove the environment and all caches; configuration and data stay
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

# The development lock holds the runtime lock, so .dev is .run too.
$(VENV)/.dev: requirements-dev.lock requirements.lock pyproject.toml | $(PY)
	@echo 'Installing everything for development into $(VENV) (about a minute the first time) …'
	@$(PIP) -r requirements-dev.lock
	@$(SELF)
	@touch $(VENV)/.run $@

$(VENV)/.run: requirements.lock pyproject.toml | $(PY)
	@echo 'Installing aion into $(VENV) (about a minute the first time) …'
	@$(PIP) -r requirements.lock
	@$(SELF)
	@touch $@

# 3.11 first: it is what the tests run on. A name may be there and not work (pyenv), so each is tried.
$(PY):
	@for python in $(PYTHON) python3.11 python3.12 python3.13 python3.14 python3; do \
	  if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	  then exec "$$python" -m venv --clear $(VENV); fi; \
	done; \
	echo 'aion needs Python 3.11 or newer with venv. Debian, Ubuntu: apt install python3-venv' >&2; \
	echo 'Or name one: make setup PYTHON=/path/to/python3' >&2; \
	exit 1
