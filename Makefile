# Everything a person does with this checkout, one word each. Needs Python 3.11 or newer, git and make;
# the rest comes into .venv, and the tools of the local cluster into the user's cache, once.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

UV_VERSION := 0.13.9
VENV := .venv
PYTHON := $(VENV)/bin/python
READY := $(VENV)/.ready
# Nothing is written beside the sources but what .gitignore names.
PYTEST := $(PYTHON) -m pytest
# These stop etcd, or look at all namespaces.
ALONE := tests/faults/test_g_store.py tests/faults/test_h_many.py
# Faults wait more than they work, and each has a namespace and a controller of its own.
SIDE_BY_SIDE := -n 3 --dist worksteal

.PHONY: help venv demo down check test faults soak fuzz bench bench-judge manifests release lock

help: ## what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | column -t -s '|' 2>/dev/null \
	  || sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1 - \2/p' $(firstword $(MAKEFILE_LIST))

venv: $(READY) ## the virtual environment, from requirements.lock

# The newest Python found makes the environment; a machine without one says what to install.
$(READY): requirements.lock pyproject.toml
	@for python in python3.14 python3.13 python3.12 python3.11 python3 python; do \
	  if command -v $$python >/dev/null && $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    found=$$python; break; \
	  fi; \
	done; \
	if [ -z "$${found:-}" ]; then \
	  echo "Serin needs Python 3.11 or newer, and none was found on PATH." >&2; exit 1; \
	fi; \
	if ! $$found -c 'import ensurepip, venv' 2>/dev/null; then \
	  echo "$$found has no ensurepip, so it cannot make a virtual environment: install its venv package" \
	       "(on Debian and Ubuntu: apt install $$($$found -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'))." >&2; \
	  exit 1; \
	fi; \
	echo "==> virtual environment with $$($$found --version)"; \
	test -x $(PYTHON) && $(PYTHON) -m pip --version >/dev/null 2>&1 || $$found -m venv --clear $(VENV)
	@echo "==> packages of requirements.lock, checked against their hashes"
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(VENV)/bin/uv pip install --quiet --require-hashes -r requirements.lock
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(VENV)/bin/uv pip install --quiet --no-deps --editable .
	@touch $@

demo: $(READY) ## three releases of a shop on a local cluster: good, bad, good; KEEP=1 leaves it up
	@$(PYTHON) -m tests.demo

down: $(READY) ## end the cluster that `make demo KEEP=1` left up
	@$(PYTHON) -m tests.cluster down

check: $(READY) ## fast: format, lint, types, imports, doctests and every test without a cluster
	@$(PYTHON) -m tests.parts static fast

test: $(READY) ## check, the statistics and the tests on the local cluster, several parts at a time; JOBS=1: one at a time
	@JOBS=$(JOBS) $(PYTHON) -m tests.parts

faults: $(READY) ## every row of the catalogue of faults; write what it came to into docs/faults.md
	@export FAULTS=all; failed=0; \
	$(PYTEST) -q -p tests.faults.noted -k test_row tests/unit tests/simulation || failed=1; \
	$(PYTHON) -m tests.cluster run -- $(PYTEST) -q $(SIDE_BY_SIDE) -p tests.faults.noted -k 'test_row or test_peers' \
	  tests/faults tests/cluster/kube $(addprefix --ignore ,$(ALONE)) || failed=1; \
	echo "==> faults of the store, and a thousand Canaries, on a cluster of their own"; \
	$(PYTHON) -m tests.cluster run -- $(PYTEST) -q -p tests.faults.noted $(ALONE) || failed=1; \
	exit $$failed

soak: $(READY) ## the simulation over fresh seeds on all cores, MINUTES=60; a failing seed is made small
	@$(PYTHON) -m tests.simulation.soak --minutes $(or $(MINUTES),60)

fuzz: $(READY) ## the laws about outside input, each over 20,000 inputs
	@$(PYTEST) -q tests/property/test_outside_input.py --hypothesis-profile=fuzz

bench: $(READY) ## measure, print a table and write build/bench.json
	@$(PYTHON) -m tests.bench

bench-judge: $(READY) ## count how often the judge is wrong and how fast it is right; write build/judge.json and docs/judge/
	@$(PYTHON) -m tests.statistics.bench

manifests: $(READY) ## write manifests/crd from the models, the chart's copies of manifests/, and docs/values.md from its schema
	@$(PYTHON) -m controller.model.crd manifests/crd
	@rm -rf charts/serin/files && mkdir -p charts/serin/files
	@cp -r manifests/crd manifests/admission manifests/rbac manifests/observability manifests/policies charts/serin/files/
	@$(PYTHON) -m tests.values docs/values.md

release: $(READY) ## the wheel, the plugin for krew and the bill of materials, in dist/
	@$(VENV)/bin/hatchling build -t wheel -d dist
	@$(PYTHON) .ci/release_plugin.py dist
	@$(PYTHON) .ci/release_lock.py sbom > dist/sbom.cdx.json

lock: $(READY) ## resolve pyproject.toml anew into requirements.lock
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(VENV)/bin/uv pip compile --quiet --universal --generate-hashes --group dev --group build --extra otel --extra sigstore pyproject.toml -o requirements.lock
