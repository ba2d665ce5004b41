# Needs Python 3.11, pip and make. `make help` lists what there is.
PYTHON ?= python3.11
VENV ?= .venv
DEMO ?= demo-output
# For `make models`: where runs go, and a folder of external sagittal slices.
RUNS ?= runs
SPIDER ?=
# For `make kaggle-dataset`: the final weights of `lumbar train`.
WEIGHTS ?= runs/rsna/weights

PACKAGES := data_prep detector classifier pipeline
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.runtime-installed
TOOLS := $(VENV)/.tools-installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --require-virtualenv

.DEFAULT_GOAL := help
.PHONY: help demo test quick lint format models graphs kaggle-dataset clean

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
	$(BIN)/python -m pytest -q --doctest-modules --ignore-glob='*/__main__.py' $(PACKAGES)
	$(BIN)/python -m pytest -n 2 --dist loadfile $(if $(COVERAGE),--cov --cov-report=term)

quick: lint ## lint, types and the tests that take seconds: what to run before every commit
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow"

lint: $(TOOLS) ## lint and types only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Each step is a file that is made once: an interrupted `make models` goes on where it was.
SAGITTAL := $(RUNS)/sagittal/sagittal.safetensors
POINTS := $(RUNS)/axial/axial.safetensors $(RUNS)/foramen/foramen.safetensors
GRADERS := $(RUNS)/graders/subarticular.safetensors

models: $(SAGITTAL) $(POINTS) $(GRADERS) ## train the bundled weights anew: make -j2 models SPIDER=folder
	$(BIN)/lumbar detector bundle $(RUNS)/sagittal $(RUNS)/axial $(RUNS)/foramen -o detector/weights
	$(BIN)/lumbar detector calibrate detector/weights --external $(SPIDER)
	$(BIN)/lumbar classifier calibrate $(RUNS)/graders --choosing $(RUNS)/crops-choosing \
	    --shifted $(RUNS)/crops-shifted -o classifier/weights
	$(MAKE) graphs

graphs: $(RUNTIME) ## after weights changed: graphs beside them, so that they run without torch
	$(BIN)/python -m pipeline.export.graphs $(wildcard detector/weights/* classifier/weights/*)

$(RUNS)/sagittal-spider/sagittal.safetensors: | $(RUNTIME)
	@test -n "$(SPIDER)" || { echo "give SPIDER=, a folder with images/, level_points.csv and split.csv" >&2; exit 2; }
	$(BIN)/lumbar detector train -o $(@D) --external $(SPIDER) --no-synthesis --epochs 16 --threads 1 --resume

$(RUNS)/sagittal-mixed/sagittal.safetensors: $(RUNS)/sagittal-spider/sagittal.safetensors
	$(BIN)/lumbar detector train -o $(@D) --external $(SPIDER) --no-synthesis --phantoms 160 --jobs 1 --epochs 12 \
	    --threads 1 --start-from $(<D) --rate 0.001 --resume

$(RUNS)/sagittal-synthesis/sagittal.safetensors: $(RUNS)/sagittal-mixed/sagittal.safetensors
	$(BIN)/lumbar detector train -o $(@D) --external $(SPIDER) --phantoms 200 --jobs 1 --epochs 10 --threads 1 \
	    --start-from $(<D) --rate 0.0008 --resume

$(RUNS)/sagittal-hard/sagittal.safetensors: $(RUNS)/sagittal-synthesis/sagittal.safetensors
	$(BIN)/lumbar detector train -o $(@D) --external $(SPIDER) --phantoms 330 --seed 2000 --jobs 1 --epochs 14 \
	    --threads 1 --start-from $(<D) --rate 0.0008 --resume

$(SAGITTAL): $(RUNS)/sagittal-hard/sagittal.safetensors
	$(BIN)/lumbar detector train -o $(@D) --external $(SPIDER) --phantoms 330 --seed 5000 --jobs 1 --epochs 10 \
	    --threads 1 --start-from $(<D) --rate 0.0006 --resume

$(POINTS): | $(RUNTIME)
	$(BIN)/lumbar detector train -o $(@D) --kind $(basename $(@F)) --phantoms 160 --jobs 1 --epochs 7 \
	    --samples-per-epoch 1000 --threads 1 --resume

$(RUNS)/crops-choosing/.cut: | $(RUNTIME)
	$(BIN)/lumbar classifier cut --phantoms 80 --seed 100000 -o $(@D)
	@touch $@

$(RUNS)/crops-shifted/.cut: | $(RUNTIME)
	$(BIN)/lumbar classifier cut --phantoms 60 --seed 110000 --scanners shifted -o $(@D)
	@touch $@

$(GRADERS): $(RUNS)/crops-choosing/.cut $(RUNS)/crops-shifted/.cut
	$(BIN)/lumbar classifier cut --phantoms 320 --seed 0 --enriched -o $(RUNS)/crops
	$(BIN)/lumbar classifier train --crops $(RUNS)/crops --choosing $(<D) -o $(@D) --epochs 8 --threads 1

kaggle-dataset: $(RUNTIME) ## wheels and weights for the Kaggle notebook: make kaggle-dataset WEIGHTS=folder
	$(BIN)/python notebooks/kaggle_dataset.py --weights $(WEIGHTS) -o kaggle-dataset

format: $(TOOLS) ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove demo output, caches and build products (not the environment, not runs/)
	rm -rf $(DEMO) build dist *.egg-info .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find data_prep detector classifier pipeline tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
