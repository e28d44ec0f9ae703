# Every target first makes .venv (tools/bootstrap.sh); what is slow to make is kept in ~/.cache/shipmate.
PY := .venv/bin/python
# Tests start many processes: their bytecode is kept, whatever the environment says, and not in the tree.
PYTEST := PYTHONDONTWRITEBYTECODE= PYTHONPYCACHEPREFIX="$${XDG_CACHE_HOME:-$$HOME/.cache}/shipmate/bytecode" $(PY) -m pytest
SIDE_BY_SIDE := --dist loadfile --no-loadscope-reorder
EVERY_BRANCH := tests/core tests/test_retention.py --cov=shipmate/core --cov-branch --cov-fail-under=100 --cov-report=term-missing:skip-covered
export PYTHON
.DEFAULT_GOAL := help
.PHONY: help demo test test-unit check down status bench-quick sim drill lock environment

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: environment ## Set everything up, run the main job and leave it running (CONTEXT=... a cluster of yours, REGISTRY=... yours too)
	@$(PY) -m localcloud demo $(if $(CONTEXT),--context $(CONTEXT)) $(if $(REGISTRY),--registry $(REGISTRY))

test: environment ## Set up what the tests need and run all of them
	@$(PY) -m localcloud setup && $(PYTEST) -m search tests/sim && $(PYTEST) -q -n 2 $(EVERY_BRANCH) && $(PYTEST) -n 3 $(SIDE_BY_SIDE) -m 'not search'

test-unit: environment ## Run the tests that need no server, in less than 30 s
	@$(PYTEST) -n 2 $(SIDE_BY_SIDE) -m 'not (environment or host or app or azurite or buildah or registry or relay or cluster or e2e or sim)'

check: environment ## Check format, lint, types and layers
	@$(PY) -m ruff format --check . && $(PY) -m ruff check . && $(PY) -m mypy && $(dir $(PY))lint-imports

down: environment ## Stop everything that was started
	@$(PY) -m localcloud down --all

status: environment ## Show what runs, and where
	@$(PY) -m localcloud status

bench-quick: environment ## Measure the main job against its baselines (about 12 minutes)
	@$(PY) -m bench.quick

sim: environment ## Search simulated histories for one that breaks a promise (SEEDS=10000), or tell one (SEED=7 SHRINK=1)
	@$(PY) -m tests.sim $(if $(SEEDS),--seeds $(SEEDS)) $(if $(FIRST),--first $(FIRST)) $(if $(SEED),--seed $(SEED)) $(if $(SHRINK),--shrink)

drill: environment ## Break the real parts under a burst of publishes (TARGETS=100 EVENTS=2000, about 15 minutes)
	@$(PY) -m drill $(if $(TARGETS),--targets $(TARGETS)) $(if $(EVENTS),--events $(EVENTS))

lock: environment ## Pin every package in constraints.txt again (UPGRADE=1 takes newer versions)
	@cat requirements.txt app/requirements.txt requirements-dev.txt | grep -v '^-' | $(PY) -m uv pip compile - --quiet --python-version 3.13 --no-annotate --no-header --output-file constraints.txt $(if $(UPGRADE),--upgrade)

environment:
	@tools/bootstrap.sh
