# Everything runs from the virtual environment in .venv, which the first target that needs it makes.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt
READY := .venv/.ready
SITE_PACKAGES := 'import sysconfig; print(sysconfig.get_path("purelib"))'

# Older releases of LlamaIndex that are served too. Each has an environment that is .venv but for them: its own packages
# come first on the path, and .venv's behind them.
LLAMA_INDEX := $(patsubst constraints-llama-index-%.txt,%,$(wildcard constraints-llama-index-*.txt))
LLAMA_INDEX_READY := $(LLAMA_INDEX:%=.venv-llama-index-%/.ready)
LLAMA_INDEX_TESTS := $(LLAMA_INDEX:%=test-llama-index-%)

# vLLM, in an environment of its own, as it wants other releases than we: those first on the path, and .venv's behind them.
VLLM_READY := .venv-vllm/.ready
VLLM_CAN_BE_HERE := 'import platform; print(*{"Linux x86_64"} & {platform.system() + " " + platform.machine()})'

.PHONY: help install model demo lint test test-vllm test-llama-index $(LLAMA_INDEX_TESTS) clean
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

help:  ## say what can be made
	@sed -n 's/^\([a-z-]*\):.*  ## /\1\t/p' $(MAKEFILE_LIST) | expand -t 18

install: $(READY)  ## make .venv with everything that demo and test need

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	@echo "Installing into .venv (the first time it takes minutes, most of them for torch)"
	@$(PYTHON) -m venv .venv
	@$(PIP) --upgrade pip
	@$(PIP) -e '.[all]' --group dev
	@touch $@

$(LLAMA_INDEX_READY): .venv-llama-index-%/.ready: constraints-llama-index-%.txt $(READY)
	@echo "Installing LlamaIndex $* into $(@D)"
	@$(BIN)/python -m venv --clear --without-pip $(@D)
	@$(BIN)/python -c $(SITE_PACKAGES) > "$$($(@D)/bin/python -c $(SITE_PACKAGES))/behind.pth"
	@$(@D)/bin/python -m pip install -qq --disable-pip-version-check --no-warn-conflicts -c $< llama-index-core
	@$(@D)/bin/python -W ignore -c 'import llama_index.core as core, sys; sys.exit(not core.__version__.startswith("$*."))'
	@touch $@

$(VLLM_READY): constraints-vllm.txt $(READY)
	@echo "Installing vLLM into $(@D) (once; it takes minutes)"
	@$(BIN)/python -m venv --clear --without-pip $(@D)
	@$(BIN)/python -c $(SITE_PACKAGES) > "$$($(@D)/bin/python -c $(SITE_PACKAGES))/behind.pth"
	@$(@D)/bin/python -m pip install -qq --disable-pip-version-check --no-warn-conflicts --no-deps -r $<
	@$(@D)/bin/python -W ignore -c 'import vllm'
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
	@$(MAKE) --no-print-directory test-llama-index
	@$(MAKE) --no-print-directory test-vllm

test-llama-index: $(LLAMA_INDEX_TESTS)  ## run LlamaIndex's tests with its older releases

$(LLAMA_INDEX_TESTS): test-llama-index-%: .venv-llama-index-%/.ready
	@echo "With LlamaIndex $*"
	@PARROT_CASES=4 $(<D)/bin/python -m pytest -m "not model" tests/integrations/llama_index

test-vllm: $(READY)  ## run what needs vLLM
	@if [ -n "$$($(BIN)/python -c $(VLLM_CAN_BE_HERE))" ]; \
	then $(MAKE) --no-print-directory $(VLLM_READY) && echo "With vLLM" && PARROT_VLLM=.venv-vllm $(BIN)/pytest -m vllm; \
	else echo "Skipped: what needs vLLM, of which there are CPU builds for Linux on x86-64 alone"; fi

clean:  ## remove the environments and the caches; the model stays
	rm -rf .venv .venv-llama-index-* .venv-vllm .mypy_cache .ruff_cache .pytest_cache .benchmarks .hypothesis .import_linter_cache build dist
