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
# Stories of a Serin that Helm installed. test_rights comes last: it looks at what the others made the controller do.
WITH_SERIN := $(addprefix tests/cluster/test_,release.py bad_input.py observability.py gitops.py threats.py \
  provenance.py attacks.py guardrails.py rights.py)
FAST := tests/unit tests/property tests/simulation tests/contract

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
	@echo "==> format";   $(VENV)/bin/ruff format --check .
	@echo "==> lint";     $(VENV)/bin/ruff check .
	@echo "==> types";    $(PYTHON) -m mypy
	@echo "==> imports";  $(VENV)/bin/lint-imports
	@echo "==> doctests"; $(PYTEST) -q --doctest-modules controller
	@echo "==> unit, property, simulation and contract tests"; $(PYTEST) -q $(FAST)

test: check ## check, then the statistics and the tests on the local cluster
	@echo "==> statistics"; $(PYTEST) -q tests/statistics
	@echo "==> packaging: the image as far as it can be built without an engine, and the plugin"; $(PYTEST) -q tests/packaging
	@echo "==> cluster tests (the first run builds the tools of the cluster: some minutes, once)"
	@$(PYTHON) -m tests.cluster run -- $(PYTEST) -q tests/cluster --ignore tests/cluster/test_chart.py \
	  $(foreach one,$(WITH_SERIN),--ignore $(one))
	@echo "==> the chart, on a cluster of its own: it brings and removes what the others need all the time"
	@$(PYTHON) -m tests.cluster run -- $(PYTEST) -q tests/cluster/test_chart.py
	@echo "==> releases from end to end, with Serin installed by Helm: some minutes"
	@$(PYTHON) -m tests.cluster run -- $(PYTEST) -q $(WITH_SERIN)
	@echo "==> faults: the part of the catalogue that takes minutes (make faults runs all of it)"
	@$(PYTHON) -m tests.cluster run -- $(PYTEST) -q tests/faults -m "not long"

faults: $(READY) ## every row of the catalogue of faults; write what it came to into docs/faults.md
	@FAULTS=all $(PYTEST) -q -p tests.faults.noted -k test_row tests/unit tests/simulation
	@FAULTS=all $(PYTHON) -m tests.cluster run -- $(PYTEST) -q -p tests.faults.noted -k test_row tests/faults tests/cluster/kube

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
	@cp -r manifests/crd manifests/admission manifests/rbac manifests/observability charts/serin/files/
	@$(PYTHON) -m tests.values docs/values.md

release: $(READY) ## the wheel, the plugin for krew and the bill of materials, in dist/
	@$(VENV)/bin/hatchling build -t wheel -d dist
	@$(PYTHON) .ci/release_plugin.py dist
	@$(PYTHON) .ci/release_lock.py sbom > dist/sbom.cdx.json

lock: $(READY) ## resolve pyproject.toml anew into requirements.lock
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(VENV)/bin/uv pip compile --quiet --universal --generate-hashes --group dev --group build --extra otel --extra sigstore pyproject.toml -o requirements.lock
