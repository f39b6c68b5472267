# The one entry: `make demo` and `make test` set up all they need. `make help` lists the rest.
.DEFAULT_GOAL := help
.PHONY: help python demo test test-long test-full test-lowest tiers lint types check format docs simulate conformance bench clean

VENV ?= .venv
BIN := $(VENV)/bin
# The newest interpreter found that we support; PYTHON=… overrides.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
# Processes that run tests: one more than there are cores, for a test waits for servers and programs half of its time.
WORKERS ?= $(shell echo $$(($$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1) + 1)))
# Neighbours stay on one worker, so that most servers of a module start once.
SPREAD := -n $(WORKERS) --dist worksteal
# Hundreds of programs are run by the tests. Each compiles every module again when this is set.
export PYTHONDONTWRITEBYTECODE =
SEEDS ?= 40
STEPS ?= 25000
ARGS ?=

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Forebay needs Python 3.11 or newer; none was found. Set PYTHON=…"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable ".[sqlite,cli]"
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable ".[all]" --group dev
	@touch $@ $(VENV)/.demo

python: ## The Python that is used
	@echo $(PYTHON)

demo: $(VENV)/.demo ## A storefront under load on an embedded SQLite file (ARGS=URL for another database)
	$(BIN)/forebay demo $(ARGS)

test: $(VENV)/.dev ## The tests that do not depend on the time; a private PostgreSQL comes with the development packages
	$(BIN)/pytest -m "not slow and not long" $(SPREAD) $(ARGS)

test-long: $(VENV)/.dev ## The tests that take seconds each, and do not depend on the time either
	$(BIN)/pytest -m "long and not slow" $(SPREAD) $(ARGS)

# What races real clocks, servers and networks waits most of its time, and has a core to itself.
test-full: test test-long ## Every test: those of `make test` and `make test-long`, then those that race a clock
	$(BIN)/pytest -m slow -n 2 --dist worksteal $(ARGS)

tiers: $(VENV)/.dev ## List every test with the command it belongs to, `make test` or `make test-full`
	@$(BIN)/python -m tests.tiers $(ARGS)

$(VENV)-lowest/.dev: pyproject.toml .ci/lowest.py
	$(PYTHON) -m venv --clear $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(PYTHON) .ci/lowest.py > $(VENV)-lowest/requirements.txt
	$(VENV)-lowest/bin/python -m pip install --quiet --requirement $(VENV)-lowest/requirements.txt --editable .
	@touch $@

test-lowest: $(VENV)-lowest/.dev ## The tests with the oldest versions that pyproject.toml allows
	$(VENV)-lowest/bin/pytest -m "not slow and not long" $(SPREAD) --ignore tests/conformance --ignore tests/pool/core --ignore tests/pool/simulation $(ARGS)

lint: $(VENV)/.dev ## Style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev ## mypy, strict
	$(BIN)/mypy

check: lint types test ## What to run before a commit

format: $(VENV)/.dev ## Format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.dev ## The documentation as a site, in .cache/site; a warning fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet --site-dir .cache/site $(ARGS)

simulate: $(VENV)/.dev ## Random simulation of the pool's core: SEEDS=40 STEPS=25000 (steps per seed)
	$(BIN)/python -m forebay.testing.simulate --seeds $(SEEDS) --steps $(STEPS) $(ARGS)

conformance: $(VENV)/.dev ## SQLAlchemy's own tests, stock and Forebay side by side (ARGS=--quick for the CI's part)
	$(BIN)/python -m conformance $(ARGS)

bench: $(VENV)/.dev ## Stock SQLAlchemy, the raw driver and Forebay, interleaved (ARGS=URL)
	$(BIN)/forebay bench $(ARGS)

clean: ## Remove what the other targets made
	rm -rf $(VENV) $(VENV)-lowest .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
