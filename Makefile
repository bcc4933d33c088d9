# The developer's vocabulary; `make help` explains it. All of it also works by hand: see README.md.

VENV := .venv
BIN := $(VENV)/bin
LOCK ?= requirements.lock
PROFILE ?= local
DIR ?= tests/golden
PORT :=
# In two processes of one thread each, which take file after file.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile
# Named after all that the environment is made from, and written last: it is made again when the lock changes,
# when the checkout has moved, and when an installation was interrupted.
STAMP := $(VENV)/installed-$(shell { pwd; cat $(LOCK) pyproject.toml; } | cksum | tr ' ' -)

# The stages' commands are `python -m stages.NAME`: the environment's Python comes first.
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Nothing that is started from here reports home or looks for updates. DVC's own switches are in .dvc/config,
# so that plain `dvc repro` is as quiet.
export DO_NOT_TRACK := 1
export DVC_NO_ANALYTICS := 1
export HF_HUB_DISABLE_TELEMETRY := 1
export ITERATIVE_DO_NOT_TRACK := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Idle threads sleep instead of spinning: on a shared machine two threads are otherwise slower than one.
export OMP_WAIT_POLICY := PASSIVE
export PREFECT_SERVER_ANALYTICS_ENABLED := false

.DEFAULT_GOAL := help
.PHONY: help env repro serve params graph test test-all test-durations test-golden lint format bench lock

help: ## Explain the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

env: $(STAMP) ## Make .venv from the lock (export LOCK=requirements-cuda.lock: with CUDA)

$(STAMP):
	@for python in python3.11 python3 none; do \
	    "$$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && break; done; \
	  test "$$python" != none || { echo "error: Python 3.11 is not installed (looked for python3.11 and python3)"; exit 2; } >&2; \
	  echo "making $(VENV) from $(LOCK): a few minutes, once" && "$$python" -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --requirement $(LOCK)
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

repro: env ## Run the pipeline on params.yaml; read reports/report.html afterwards
	@$(BIN)/python -m stages.check
	@$(BIN)/dvc repro
	@$(BIN)/python -m lineage cited reports/report.html --html reports/lineage.html || test $$? -eq 3  # 3: in part

serve: env ## Start a Prefect server, workers and the deployments, on loopback, until Ctrl-C (PORT=N: not at 4200)
	@$(BIN)/python -m pipelines.serve $(PORT:%=--port %)

params: env ## Compose params.yaml from conf/ (PROFILE=smoke, local, study, paper or your own; EXPERIMENT=k or none)
	@test -z '$(EXPERIMENT)' -o -f 'conf/experiments/$(EXPERIMENT).yaml' || { echo "error: there is no conf/experiments/$(EXPERIMENT).yaml" >&2; exit 2; }
	@test -f conf/profile/$(PROFILE).yaml || { echo "error: there is no conf/profile/$(PROFILE).yaml" >&2; exit 2; }
	@$(BIN)/python -c "from pathlib import Path; from dvc.utils.hydra import compose_and_dump; compose_and_dump( \
	    'params.yaml', str(Path('conf').resolve()), None, 'config', 'hydra_plugins', \
	    'profile=$(PROFILE) $(EXPERIMENT:%=experiments=%)'.split())"

graph: env ## Bring the code dependencies in dvc.yaml up to date with the imports
	@$(BIN)/python -m commands.graph --write

test: env ## Run the fast tests (under 10 minutes, the environment included)
	@$(PYTEST) -m "not slow"

test-all: test ## Run all tests: the fast ones, then the slow ones (about 45 minutes on two cores)
	@$(PYTEST) -m slow

test-durations: env ## Run all tests and list the thirty that take longest
	@$(PYTEST) --durations=30

test-golden: env ## Check parity with the reference numbers in a folder (DIR=tests/golden or yours)
	@test -d '$(DIR)' || { echo "error: there is no folder $(DIR)" >&2; exit 2; }
	@$(BIN)/python -m pytest -v tests/golden -m golden --golden-dir='$(DIR)'

lint: env ## Check style, formatting and types, as pre-commit does
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy softmask scoring artifacts runner reporting stages commands pipelines lineage benchmarks

format: env ## Mend style and formatting
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

bench: env ## Measure the speed of MDLM's steps and of packing (or BENCH=training, flows, lineage, decoding or stages)
	@$(BIN)/python -m benchmarks $(BENCH)

lock: env ## Resolve both lock files from pyproject.toml again (LOCK_OPTIONS=--upgrade for newer versions)
	@$(BIN)/uv pip compile pyproject.toml --extra dev --quiet --python-version 3.11 $(LOCK_OPTIONS) \
	    --python-platform x86_64-manylinux_2_28 --custom-compile-command "make lock" \
	    --annotation-style line --output-file requirements-cuda.lock
	@sed -E '/^nvidia-ml-py==/b; /^(cuda-|nvidia-|triton==)/d' requirements-cuda.lock > requirements.lock  # dvclive's stays
