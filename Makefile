# Needs Python 3.11, pip and make. `make help` lists what there is.
PYTHON ?= python3.11
VENV ?= .venv
DEMO ?= demo-output
# For `make models`: where runs go; see models.mk for the rest.
RUNS ?= runs
# For `make kaggle-dataset`: the final weights of `lumbar train`.
WEIGHTS ?= runs/rsna/weights
# Whose data set it is to be: your Kaggle name.
OWNER ?= OWNER

# Of tests at once: more than two processors have work for, because many wait for another process.
WORKERS ?= 3

PACKAGES := data_prep detector classifier pipeline
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.runtime-installed
TOOLS := $(VENV)/.tools-installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --require-virtualenv

.DEFAULT_GOAL := help
.PHONY: help demo test quick lint format graphs kaggle-dataset clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 24

# Stamps: the environment is touched again only when the requirements change.
$(RUNTIME): requirements.txt pyproject.toml
	@echo "Making the environment in $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV)
	@echo "Installing the pinned requirements (about 6 GB with torch: the first time takes minutes)"
	@$(PIP) install --quiet -r requirements.txt
	@$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@touch $@

$(TOOLS): requirements-dev.txt $(RUNTIME)
	@echo "Installing lint, types and tests"
	@$(PIP) install --quiet -r requirements-dev.txt
	@touch $@

demo: $(RUNTIME) ## one synthetic study, end to end, with pictures
	@$(BIN)/python -m pipeline demo -o $(DEMO)

test: lint ## lint, types and tests; COVERAGE=1 says which lines no test reaches
	$(BIN)/python -m pytest -q --doctest-modules $$(grep -rl '>>> ' --include='*.py' $(PACKAGES))
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(if $(COVERAGE),--cov --cov-report=term)

quick: lint ## lint, types and the tests that take seconds: what to run before every commit
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile -m "not slow"

lint: $(TOOLS) ## lint and types only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

include models.mk

graphs: $(RUNTIME) ## after weights changed: graphs beside them, so that they run without torch
	$(BIN)/python -m pipeline.export.graphs $(wildcard detector/weights/* classifier/weights/*)

kaggle-dataset: $(RUNTIME) ## wheels and weights for the Kaggle notebook: make kaggle-dataset WEIGHTS=folder OWNER=you
	$(BIN)/python notebooks/kaggle_dataset.py --weights $(WEIGHTS) --owner $(OWNER) -o kaggle-dataset

format: $(TOOLS) ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove demo output, caches and build products (not the environment, not runs/)
	rm -rf $(DEMO) build dist *.egg-info .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find data_prep detector classifier pipeline tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
