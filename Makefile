# Everything runs from the virtual environment in .venv, which the first target that needs it makes.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt
READY := .venv/.ready

.PHONY: help install model demo lint test clean
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

help:  ## say what can be made
	@sed -n 's/^\([a-z]*\):.*  ## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

install: $(READY)  ## make .venv with everything that demo and test need

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	@echo "Installing into .venv (the first time it takes minutes, most of them for torch)"
	@$(PYTHON) -m venv .venv
	@$(PIP) --upgrade pip
	@$(PIP) -e '.[all]' --group dev
	@touch $@

model: $(READY)  ## fetch the default model unless it is there
	@$(BIN)/parrot models pull > /dev/null

demo: model  ## summarize a real document, and show what was shared
	@$(BIN)/python cookbooks/map_reduce_demo.py

lint: $(READY)  ## check style, format and types
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/mypy

test: lint model  ## lint, then run every test
	@$(BIN)/pytest

clean:  ## remove the environment and the caches; the model stays
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .benchmarks .hypothesis .import_linter_cache build dist
