# PudNet Kit. The two commands of the README are `make report` and `make test`; `make help` lists all.
# VENV: the environment's folder. PYTHON: the interpreter that makes it. PIP_ARGS: further options for pip.
VENV ?= .venv
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
PIP_ARGS ?=
PROFILE ?= laptop
NEEDED_GB ?= 8
COVERAGE_MIN ?= 90
BIN := $(VENV)/bin
STAMP := $(VENV)/.pudnet-installed
NOTEBOOKS := $(wildcard notebooks/*.ipynb)

.DEFAULT_GOAL := help
.PHONY: help install report commit-results test test-browser lint lab bench clean distclean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

install: $(STAMP) ## make the environment

$(STAMP): pyproject.toml
	@if [ ! -x "$(BIN)/python" ]; then \
		if [ -z "$(PYTHON)" ]; then \
			echo "PudNet Kit needs Python 3.11, 3.12 or 3.13; found: $$(python3 --version 2>&1). Install one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; fi; \
		mkdir -p "$(dir $(abspath $(VENV)))"; \
		free=$$(df -Pk "$(dir $(abspath $(VENV)))" | awk 'NR == 2 { print int($$4 / 1048576) }'); \
		if [ "$$free" -lt "$(NEEDED_GB)" ]; then \
			echo "Only $$free GB are free for $(VENV); PudNet Kit needs $(NEEDED_GB) GB (torch takes about 6). Free some, or put the environment elsewhere: make VENV=/other/disk/venv" >&2; exit 1; fi; \
		$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
			echo "$(PYTHON) lacks the venv module; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }; \
		echo "Making $(VENV) with $$($(PYTHON) --version)"; \
		$(PYTHON) -m venv "$(VENV)" || { rm -rf "$(VENV)"; exit 1; }; fi
	@$(BIN)/python -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else "%s has Python %d.%d; PudNet Kit needs 3.11 to 3.13." % (sys.prefix, *v))'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -e ".[dev]"
	@touch $@

report: $(STAMP) ## run all notebooks that have changed, write reports/index.html (PROFILE=laptop); nothing committed changes
	$(BIN)/python -m pudnet_lib reproduce --profile $(PROFILE)

commit-results: $(STAMP) ## as report, then write results, reports/README.md and the notebooks' outputs, to be committed
	$(BIN)/python -m pudnet_lib reproduce --profile laptop --commit

test: $(STAMP) ## ruff, mypy, pytest, nbval on every notebook, coverage
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	rm -f .coverage .coverage.*
	OMP_NUM_THREADS=1 PUDNET_PROFILE=smoke $(BIN)/python -m pytest -n 2 --ignore=tests/browser --cov --cov-report=
	PUDNET_PROFILE=smoke $(BIN)/python -m pytest tests/browser -m "not slow"  # alone: a browser's event loop runs as long as it lives
	@# smoke runs every notebook; tagged cells are compared with the committed outputs, which hold no progress bars
	$(if $(NOTEBOOKS),OMP_NUM_THREADS=1 PUDNET_PROFILE=smoke TQDM_DISABLE=1 PYTHONWARNINGS=ignore $(BIN)/python -m pytest -n 2 --dist loadfile --nbval-lax --nbval-current-env \
		--nbval-sanitize-with tests/sanitize.cfg --nbval-cell-timeout 300 --nbval-kernel-startup-timeout 120 $(NOTEBOOKS))
	$(BIN)/python -m coverage report --fail-under=$(COVERAGE_MIN)

test-browser: $(STAMP) ## all browser tests, also those of notebooks in JupyterLab (five minutes)
	PUDNET_PROFILE=smoke $(BIN)/python -m pytest tests/browser

lint: $(STAMP) ## ruff and mypy, ruff with repairs
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .
	$(BIN)/python -m mypy

lab: $(STAMP) ## JupyterLab on the notebooks
	$(BIN)/python -m pudnet_lib lab

bench: $(STAMP) ## speed against plain counterparts, into reports/results/benchmarks.json
	$(BIN)/python benchmarks/run.py

clean: ## remove caches, pages and runs; results and the environment stay
	rm -rf .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	rm -rf reports/index.html reports/site reports/runs runs
	find pudnet_lib tests benchmarks scripts -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## remove the environment, too
	rm -rf .venv
