# SPDX-License-Identifier: Apache-2.0
# Every target makes the environment it needs, in .venv; a stamp file says what is in it.
VENV   := .venv
PY     := $(VENV)/bin/python
ARGS   ?=
SETUP   = @python="$$(sh tools/check_host.sh)" && "$$python" tools/environment.py $(VENV)

.DEFAULT_GOAL := help
.PHONY: help demo test lint format soak train-test bench synth area others registers firmware clean distclean host

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

demo: host $(VENV)/core.stamp ## run the pruned classifier on the generated Verilog
	@$(PY) -m sim demo $(ARGS)

test: lint ## lint, types, import walls, then all tests with coverage
	$(PY) -m pytest -n auto --cov --cov-report=term $(ARGS)

lint: host $(VENV)/test.stamp ## ruff, mypy, import-linter
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports --no-logo

format: $(VENV)/test.stamp ## let ruff rewrite the sources
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

soak: host $(VENV)/test.stamp $(VENV)/models.stamp ## the long tests: 32x32, real networks, hundreds of random layers
	$(PY) -m pytest -m soak --hypothesis-profile=soak $(ARGS)

train-test: host $(VENV)/test.stamp $(VENV)/train.stamp ## tests of training: installs torch, which `make test` does not
	$(PY) -m pytest tests/csp_algo/train $(ARGS)

bench: host $(VENV)/core.stamp ## speed of the co-simulation
	$(PY) benchmarks/cosim_speed.py $(ARGS)

synth: host $(VENV)/synth.stamp ## FPGA synthesis: Fmax and area on an ECP5
	$(PY) benchmarks/synthesis.py $(ARGS)

area: host $(VENV)/synth.stamp ## area of a PE in standard cells (Debian: qflow-tech-osu018)
	$(PY) benchmarks/area.py $(ARGS)

others: host $(VENV)-compare/compare.stamp ## the same layer on SCALE-Sim and ZigZag, in an environment of its own
	$(VENV)-compare/bin/python benchmarks/others.py $(ARGS)

firmware: host $(VENV)/core.stamp ## the network in firmware written in C, on the simulated core
	@$(PY) -m sim firmware $(ARGS)

registers: host $(VENV)/registers.stamp ## from registers.rdl: C header, Python map, documentation
	$(PY) tools/registers.py --html build/registers

clean: ## what was built, not the environment
	rm -rf build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage
	find . -path './$(VENV)*' -prune -o -name __pycache__ -type d -exec rm -rf {} +

distclean: clean ## everything that git does not track here
	rm -rf $(VENV) $(VENV)-compare

host:
	@sh tools/check_host.sh > /dev/null

$(VENV)/core.stamp: pyproject.toml tools/environment.py
	$(SETUP) core

$(VENV)-compare/compare.stamp: pyproject.toml tools/environment.py
	@python="$$(sh tools/check_host.sh)" && "$$python" tools/environment.py $(VENV)-compare compare

$(VENV)/%.stamp: pyproject.toml tools/environment.py
	$(SETUP) $*
