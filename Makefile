# Every target sets up what it needs; `make demo` and `make test` work on a fresh machine.
PYTHON ?= python3
PIP_ARGS ?= -c constraints.txt
VENV := .venv
BIN := $(VENV)/bin
# one thread a process: on a busy machine two threads a process run several times slower than one
export OMP_NUM_THREADS ?= 1
# empty: Python keeps what it compiled; tests start some hundred processes, and each would compile the library for three seconds
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help demo test lint fix unit slow ray bench studies clean

help: ## show this
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

$(VENV)/.ok: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "lazyrich needs Python 3.10 or newer: make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check uv
	UV_FIND_LINKS="$${PIP_FIND_LINKS:-}" VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install -q --compile-bytecode $(PIP_ARGS) -e '.[dev]'
	touch $@

demo: $(VENV)/.ok ## check a classifier and an autoencoder of real images; ends with the page to open
	$(BIN)/lazyrich demo --out runs/demo

test: lint unit ## everything that CI runs

lint: $(VENV)/.ok ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyrefly check --summarize-errors

fix: $(VENV)/.ok ## mend the style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

unit: $(VENV)/.ok
	$(BIN)/python -m pytest -q -n 2

slow: $(VENV)/.ok ## the slow tests: published numbers, wide networks
	$(BIN)/python -m pytest -q -n 2 -m slow

ray: $(VENV)/.ok ## the tests that start a Ray cluster
	UV_FIND_LINKS="$${PIP_FIND_LINKS:-}" VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install -q $(PIP_ARGS) -e '.[ray]'
	$(BIN)/python -m pytest -q -m ray

studies: $(VENV)/.ok ## the numbers of docs/evidence.md
	for study in studies/*.py; do $(BIN)/python $$study || exit 1; done

bench: $(VENV)/.ok ## ratios against peers, measured in one run
	for bench in benchmarks/*.py; do $(BIN)/python $$bench || exit 1; done

clean: ## remove the environment and caches
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis build *.egg-info
