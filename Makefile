# Needs Python 3.11, pip and make. `make help` lists what there is.
PYTHON ?= python3.11
VENV ?= .venv
DEMO ?= demo-output
# For `make models`: where runs go, a folder of external sagittal slices, and how many synthetic patients.
RUNS ?= runs
SPIDER ?=
AXIAL_PHANTOMS ?= 300
GRADER_PHANTOMS ?= 600
CHOOSING_PHANTOMS ?= 150
JOBS ?= 2

BIN := $(VENV)/bin
RUNTIME := $(VENV)/.runtime-installed
TOOLS := $(VENV)/.tools-installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --require-virtualenv

.DEFAULT_GOAL := help
.PHONY: help demo test lint format models clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

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

test: $(TOOLS) ## lint, types and tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

lint: $(TOOLS) ## lint and types only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

models: $(RUNTIME) ## train the bundled weights anew: make models SPIDER=folder
	@test -n "$(SPIDER)" || { echo "give SPIDER=, a folder with images/, level_points.csv and split.csv" >&2; exit 2; }
	$(BIN)/lumbar detector train -o $(RUNS)/sagittal --kind sagittal --external $(SPIDER)
	$(BIN)/lumbar detector train -o $(RUNS)/axial --kind axial --phantoms $(AXIAL_PHANTOMS) --seed 0 --jobs $(JOBS)
	cp $(RUNS)/sagittal/sagittal.safetensors $(RUNS)/sagittal/sagittal.json detector/weights/
	cp $(RUNS)/axial/axial.safetensors $(RUNS)/axial/axial.json detector/weights/
	$(BIN)/python -c "from data_prep.manifest import write_manifest; write_manifest('detector/weights')"
	$(BIN)/lumbar classifier cut --phantoms $(GRADER_PHANTOMS) --seed 0 --enriched -o $(RUNS)/crops --jobs $(JOBS)
	$(BIN)/lumbar classifier cut --phantoms $(CHOOSING_PHANTOMS) --seed 100000 -o $(RUNS)/crops-choosing --jobs $(JOBS)
	$(BIN)/lumbar classifier train --crops $(RUNS)/crops --choosing $(RUNS)/crops-choosing -o $(RUNS)/graders
	$(BIN)/lumbar classifier calibrate $(RUNS)/graders --choosing $(RUNS)/crops-choosing -o classifier/weights

format: $(TOOLS) ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove demo output, caches and build products (not the environment, not runs/)
	rm -rf $(DEMO) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find data_prep detector classifier pipeline tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
