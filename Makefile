# `make` lists the targets. The environment in $(VENV) is made when a target needs it, and
# brought up to date when pyproject.toml or constraints.txt change.

PYTHON ?= python3
VENV   ?= .venv
DEVICE ?= stand-in
ON_DEVICE := $(addprefix tests/,laws calculus fields diagnostics test_noise.py)
BENCH  ?= $(sort $(wildcard benchmarks/[a-z]*.py))

BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# Two processes of one thread each: on small tensors, more threads only wait for each other. Freed
# tensors of a megabyte and more go back to the system at once.
PYTEST := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 MALLOC_MMAP_THRESHOLD_=1000000 $(BIN)/python -m pytest -n 2 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help demo env test hostile test-shapes test-device test-slow test-all mutate lint format docs bench release clean
.DELETE_ON_ERROR:

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.stamp-core ## compare five models on data with a known truth, and write the report
	$(BIN)/scorefield demo

env: $(VENV)/.stamp-dev ## make the whole environment: the package, the tools, the docs

test: $(VENV)/.stamp-dev ## run the fast tests
	$(PYTEST) -m "not slow"

test-shapes: $(VENV)/.stamp-dev ## run the fast tests with every annotation checked, in twice the time
	# No graph can be made of a checked function.
	$(PYTEST) -m "not slow" --jaxtyping-packages=scorefield,beartype.beartype \
		--ignore=tests/networks/test_compile.py

test-device: $(VENV)/.stamp-dev ## run laws, noise and diagnostics on DEVICE=cuda, or on a stand-in for one
	$(PYTEST) -m "not slow" --device $(DEVICE) $(ON_DEVICE)

test-slow: $(VENV)/.stamp-dev ## run the slow tests only
	$(PYTEST) -m slow

test-all: $(VENV)/.stamp-dev ## run every test
	$(PYTEST)

hostile: $(VENV)/.stamp-dev ## kill every command, fill its disk, and damage files: hours
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m tests.hostile

lint: $(VENV)/.stamp-dev ## check style, types and the order of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python tools/words.py

mutate: $(VENV)/.stamp-dev ## plant 200 faults in the mathematics, list those no test finds (hours)
	$(BIN)/python tools/mutate.py

format: $(VENV)/.stamp-dev ## apply the style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(VENV)/.stamp-dev ## build the documentation into docs/_build/html
	@rm -rf docs/_api
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

bench: $(VENV)/.stamp-dev ## run the benchmarks, or those named in BENCH="..."
	@set -e; for script in $(BENCH); do echo "== $$script"; $(BIN)/python "$$script"; done

release: $(VENV)/.stamp-dev ## build the sdist and the wheel into dist/, and run the README with the wheel
	$(BIN)/python tools/release.py

clean: ## remove caches and builds; keep the environment, the runs and the reports
	rm -rf build dist docs/_api docs/_build docs/jupyter_execute .benchmarks .hypothesis \
		.import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests benchmarks docs examples -name __pycache__ -type d -prune -exec rm -rf {} + \
		2>/dev/null || true

# ------------------------------------------------------------------------------ environment

$(VENV)/.stamp-venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "scorefield needs Python 3.11 or newer, and '$(PYTHON)' is not." \
			"Name one that is: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# Enough to use the package.
$(VENV)/.stamp-core: pyproject.toml constraints.txt | $(VENV)/.stamp-venv
	@echo "Installing scorefield and what it needs into $(VENV): a minute or two."
	$(PIP) -e .
	@touch $@

# Enough to work on it.
$(VENV)/.stamp-dev: pyproject.toml constraints.txt | $(VENV)/.stamp-venv
	@echo "Installing scorefield and its development tools into $(VENV): a minute or two."
	$(PIP) -e '.[dev,docs]'
	@touch $(VENV)/.stamp-core $@
