# Every target sets up what it needs (scripts/setup.sh: quick when nothing has changed).
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-cluster check crds docs bench-engine bench-operator bench-network bench-replay bench-classes test-faults clean
PYTHON_OF_VENV := .venv/bin/python

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F'\t' '{ printf "  make %-14s %s\n", $$1, $$2 }'

setup: ## Make .venv with all packages
	@scripts/setup.sh

demo: setup ## An agent's conversation over all three read modes, compared token by token
	@$(PYTHON_OF_VENV) examples/demo.py

test: setup ## All tests; ARGS="-k name" selects. The first time, Kubernetes is built: ten minutes
	@tests/cluster/tools/build.sh >/dev/null
	@$(PYTHON_OF_VENV) -m pytest $(ARGS)

test-cluster: setup ## The tests on a Kubernetes control plane of their own; ARGS="-k name" selects
	@tests/cluster/tools/build.sh >/dev/null
	@$(PYTHON_OF_VENV) -m pytest tests/cluster $(ARGS)

check: setup ## Lint, format, types, layers, documentation: under a minute
	@scripts/check.sh

crds: setup ## Write the CustomResourceDefinitions anew
	@$(PYTHON_OF_VENV) scripts/generate_crds.py
	@$(PYTHON_OF_VENV) scripts/generate_chart_schema.py

docs: setup ## Write the generated reference pages anew
	@$(PYTHON_OF_VENV) scripts/generate_docs.py
	@$(PYTHON_OF_VENV) scripts/generate_chart_docs.py
	@$(PYTHON_OF_VENV) scripts/generate_dashboards.py
	@$(PYTHON_OF_VENV) scripts/spec_coverage.py

bench-engine: setup ## Measure the engine against recomputing and transformers
	@PYTHONPATH=examples $(PYTHON_OF_VENV) benchmarks/engine.py $(ARGS)

bench-operator: setup ## Measure the operator with 500 clusters on fake nodes; ARGS="--clusters 50" for a quick look
	@tests/cluster/tools/build.sh >/dev/null
	@PYTHONPATH=tests/cluster $(PYTHON_OF_VENV) benchmarks/control_plane.py $(ARGS)

bench-network: setup ## Measure both paths over rate-limited NICs (root); ARGS="--only 1P1D" for a quick look
	@PYTHONPATH=examples:benchmarks $(PYTHON_OF_VENV) benchmarks/network.py $(ARGS)

bench-replay: setup ## Replay recorded coding sessions over rate-limited NICs (root); ARGS="--sessions 4" for a quick look
	@PYTHONPATH=examples:benchmarks $(PYTHON_OF_VENV) benchmarks/replay.py $(ARGS)

bench-classes: setup ## Measure inference traffic beside saturating KV traffic, with and without classes (root)
	@PYTHONPATH=tests/network $(PYTHON_OF_VENV) benchmarks/traffic_classes.py $(ARGS)

test-faults: setup ## Every fault in turn on the emulated network, 20 minutes (root); ARGS="--only cut" for some
	@DUALPATH_ETCD=$$(tests/cluster/tools/build.sh)/etcd PYTHONPATH=examples:tests/network:tests/e2e \
		$(PYTHON_OF_VENV) tests/network/faults.py $(ARGS)

clean: ## Remove .venv and everything that was built or cached
	@rm -rf .venv .demo .work build dist .hypothesis .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	@find . -name __pycache__ -prune -exec rm -rf {} +
	@echo "clean: removed .venv, caches and build output"
