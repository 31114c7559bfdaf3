.DEFAULT_GOAL := help
SHELL := /bin/bash

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
CPU    ?= vmx
XEN    ?= 4.17

STAMP    := $(VENV)/.ready
NATIVE   := $(wildcard xenintro/xen/*.[ch] xenintro/sim/*.[ch] xenintro/sim/*.map) $(wildcard xenintro/xen/build_*.py) xenintro/xen/signatures.py
FUZZ_SECONDS ?= 60
# Most tests wait for a process. Those that share an emulator or the tree come after the others, one by one.
PARALLEL := -n 3

help: ## show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv and build the native parts

$(STAMP): pyproject.toml setup.py $(NATIVE) tools/setup.sh
	@tools/setup.sh $(PYTHON) $(VENV)
	@touch $@

demo: $(STAMP) ## watch a simulated guest until Ctrl-C; needs no Xen
	@$(BIN)/xenintro demo

test: wheel ## pass the tests, the lab's on a real Xen in an emulator included
	@tools/test-packages.sh
	@status=0; \
	$(BIN)/python -m pytest -q $(PARALLEL) -m "not (exhaustive or lab or alone)" || status=$$?; \
	$(BIN)/python -m pytest -q -m "(lab and not thorough) or alone" || status=$$?; \
	exit $$status

faults: $(STAMP) ## every errno and every disaster at every call of a session; no guest may be lost
	@$(BIN)/python -m pytest -q $(PARALLEL) -m exhaustive

check: $(STAMP) lint ## what every commit passes: lint, types, layers, fast tests
	@$(BIN)/python -m pytest -q $(PARALLEL) -m "not lab and not slow and not exhaustive"

lint: $(STAMP) ## ruff, mypy, import layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(STAMP) ## let ruff format and fix
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

fuzz: $(STAMP) ## fuzz everything that parses for FUZZ_SECONDS (60) each
	@$(BIN)/python -m pip install -q atheris
	@for target in tests/fuzz/fuzz_*.py; do \
	    $(BIN)/python $$target -max_total_time=$(FUZZ_SECONDS) || exit 1; \
	done

KILLS ?= 1000

kills: $(STAMP) ## kill a watching process KILLS (1000) times at random instants; no guest may be lost
	@$(BIN)/python -m tests.kills --count $(KILLS)

kills-record: $(STAMP) ## kill a recording process KILLS (1000) times; nothing that was answered may be missing
	@$(BIN)/python -m tests.kills --record --count $(KILLS)

bench: wheel ## measure, the lab included; ratios against references in the same run
	@$(BIN)/python -m tests.bench

wheel: $(STAMP) ## build the manylinux wheel and the pure one into dist/
	@$(BIN)/python -m pip install -q -e '.[wheel]'
	@mkdir -p build
	@for kind in "" --pure; do \
	    $(BIN)/python tools/wheel.py $$kind > build/wheel.log 2>&1 || { cat build/wheel.log; exit 1; }; \
	    tail -n 1 build/wheel.log; \
	done

lab: wheel ## a shell in dom0 of a real Xen in an emulator (CPU=vmx|svm XEN=4.14|4.17|4.20)
	@$(BIN)/python -m tests.lab.shell --cpu $(CPU) --xen $(XEN)

test-lab: wheel ## all the lab's tests, both emulators, Xen 4.17
	@$(BIN)/python -m pytest -q tests/lab --attaches 20

test-lab-all: wheel ## the lab's tests with Xen 4.14 and 4.20 too
	@$(BIN)/python -m pytest -q tests/lab --attaches 20 --all-releases

clean: ## remove what was built
	@rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find xenintro cli tests -name '*.so' -delete -o -name __pycache__ -prune -exec rm -rf {} +

.PHONY: help setup demo test faults check lint format fuzz kills kills-record bench wheel lab test-lab test-lab-all clean
