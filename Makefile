# geofm: `make demo` and `make test` do all the set-up themselves. `make help` lists the rest.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
  command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
OUT ?= demo

help: ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

$(BIN)/python:
	@[ -n "$(PYTHON)" ] || { echo "geofm needs Python 3.11 to 3.13 on the PATH (or: make PYTHON=/path/to/python3)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/dev.stamp: pyproject.toml model/pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]' -e model
	touch $@ $(VENV)/run.stamp

install: $(VENV)/run.stamp ## make .venv with geofm-sample in it
dev: $(VENV)/dev.stamp ## make .venv with everything that development needs

demo: $(VENV)/run.stamp ## sample the embedded archive into demo/ and print the path of the report
	$(BIN)/geofm-sample --region demo --years 2022-2023 --chip-size 64 --samples 96 \
	  --heldout 0.2 --block-km 6 --buffer-km 0.5 --out $(OUT)

test: $(VENV)/dev.stamp ## the fast tests
	$(BIN)/python -m pytest -q -n auto

test-heavy: $(VENV)/dev.stamp ## tests that take minutes or several processes
	$(BIN)/python -m pytest -q -m heavy

lint: $(VENV)/dev.stamp ## ruff, mypy, pyright and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

check: lint test test-heavy check-demo ## everything that CI runs

check-demo: $(VENV)/run.stamp
	rm -rf build/check-demo
	$(MAKE) demo OUT=build/check-demo
	$(BIN)/geofm-sample verify build/check-demo

clean: ## remove what make made, but for .venv
	rm -rf build dist demo .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

.PHONY: help install dev demo test test-heavy lint check check-demo clean
