# The commands of the README. Each creates .venv when it is missing or out of date, from a list of hashes (LOCK): with torch
# for CPUs, or as the package index serves it, `make LOCK=requirements-lock-cuda.txt`.
LOCK ?= requirements-lock.txt
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PEERS := .venv-peers/.installed
CORES ?= $(shell nproc)
RULES := Snakefile $(wildcard rules/*.smk)

.PHONY: help install quick paper latency test test-full bench compare-peers compare lint clean

help:  ## what the targets do
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile

install: $(INSTALLED)  ## create .venv and install the locked list

$(INSTALLED): $(LOCK) install/seal-toolchain.cmake
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
		{ echo "Python 3.11 is needed, $$($(PYTHON) --version) was found; name one: make PYTHON=/path/to/python3.11"; exit 1; }
	@command -v c++ >/dev/null || { echo "a C++ compiler (c++) is needed to build Pyfhel; none was found"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	CMAKE_TOOLCHAIN_FILE=$(CURDIR)/install/seal-toolchain.cmake $(BIN)/pip install --quiet --disable-pip-version-check \
		--require-hashes -r $(LOCK)
	@touch $@

quick: $(INSTALLED)  ## every stage on the committed CIFAR-10 sample, real cryptography, minutes
	$(BIN)/snakemake --cores $(CORES) --configfile config/quick.yaml

paper: $(INSTALLED)  ## the paper's study
	$(BIN)/snakemake --cores $(CORES)

latency: $(INSTALLED)  ## predicted beside measured latency of every linear layer, minutes; nothing else may run
	$(BIN)/snakemake --cores $(CORES) --configfile config/latency.yaml -- latency_comparison

test: $(INSTALLED) lint  ## lint, types and the test suite
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-full: $(INSTALLED) lint  ## the slow tests too
	$(BIN)/python -m pytest -n 2 --dist loadfile -m ""

bench: $(INSTALLED)  ## time the kernels beside their targets and, with requirements-bench.txt installed, beside SEAL
	$(BIN)/python scripts/bench.py

$(PEERS): requirements-peers.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install --quiet --disable-pip-version-check -r requirements-peers.txt
	@touch $@

compare-peers: $(INSTALLED) $(PEERS)  ## SPU's Cheetah beside this project: a table; nothing else may run
	$(BIN)/snakemake --cores $(CORES) -- compare_peers

STUDY ?= paper-short
compare: $(INSTALLED)  ## your results beside the reference and the paper, a line a claim; make compare STUDY=quick
	PYTHONPATH=scripts $(BIN)/python -m autoprivacy.reference.compare $(STUDY)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check $(RULES)
	$(BIN)/python .ci/lint_workflow.py
	$(BIN)/mypy

clean:  ## remove results of runs (results/reference is kept)
	find results -mindepth 1 -maxdepth 1 ! -name reference -exec rm -r {} +
