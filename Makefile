# Two commands from a fresh clone, with only Python >= 3.11 and make:
#   make demo   create the environment, then generate, measure, judge, record and verify one text
#   make test   the same environment, then every check that CI runs
# Each creates what is missing; both can be run again, also after an interruption.

.DEFAULT_GOAL := help
.PHONY: help demo test check lint ops-tools clean

VENV := .venv
READY := $(VENV)/.ready
OPS := .ops-tools
# The first Python on this machine that is new enough; PYTHON=... overrides it.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
PROMPT ?= Large language models are trained on

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST)

demo: $(READY) ## create the environment and run the main job on the embedded model
	@rm -rf demo
	$(VENV)/bin/cert analyze --format human "$(PROMPT)" \
		|| { code=$$?; [ $$code -eq 1 ] || [ $$code -eq 3 ]; } # verdicts, see cert exit-codes
	$(VENV)/bin/cert verify
	@printf '\nThe ledger is demo/ledger; the record of the text is its fourth line (%s bytes):\n' \
		$$(sed -n 4p demo/ledger/segments/*.jsonl | wc -c)
	@sed -n 4p demo/ledger/segments/*.jsonl | cut -c1-420

# The demo's evidence and key stay in this folder.
demo: export CERT_LEDGER := demo/ledger
demo: export CERT_KEYS := demo/keys

test: lint ## all checks: lint, then the whole test suite with branch coverage
	$(VENV)/bin/pytest -n logical --maxprocesses 4 --dist worksteal --cov --cov-report=term:skip-covered

# A worker a core: more threads than that would wait for each other.
test: export OMP_NUM_THREADS=1

check: test ## the same as test

lint: $(READY) ## ruff, mypy and the floors' import contracts
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

ops-tools: $(OPS)/.ready ## validators of deployments/, whose tests are skipped without them

clean: ## remove the environment and every build product
	rm -rf $(VENV) $(OPS) build dist demo .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache \
		.hypothesis .import_linter_cache

# The stamp comes last, so an interrupted installation is simply done again.
$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python >= 3.11 found; name one: make PYTHON=/path/to/python" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt hatchling editables
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	@touch $(READY)

$(OPS)/.ready: deployments/requirements-tools.txt
	$(PYTHON) -m venv $(OPS)
	$(OPS)/bin/python -m pip install --quiet --no-deps --requirement deployments/requirements-tools.txt
	@touch $@
