# One environment, .venv, for everything. make never calls apt or sudo: what it misses, it names.
# Works with GNU make 3.81, which macOS ships.

VENV    := .venv
PY      := $(VENV)/bin/python
PIP     := $(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
LAB     := $(VENV)/.installed-lab
TOOLS   := $(VENV)/.installed-tools
SOURCES := pyproject.toml constraints.txt

# What papermill and JupyterLab write into a notebook beside outputs; the widgets' state may hold outputs too.
STRIPPED := metadata.papermill metadata.widgets metadata.language_info.version cell.metadata.papermill cell.metadata.execution

.DEFAULT_GOAL := help
.PHONY: help setup lab test test-kind lint lint-notebooks bench constraints clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

lab: $(LAB) ## open the course in JupyterLab, on your own copy (DIR=jslab-course, ARGS=--no-browser)
	@$(PY) -m jslab lab $(DIR) $(ARGS)

test: $(TOOLS) ## run every test on the embedded servers, lessons and a real browser included (ARGS="-k ...")
	@$(PY) -m pytest -p tests.no_skips -n 4 --dist loadfile --durations=10 --ignore=tests/kind $(ARGS)

# Clusters of its own, one for each process: tests remove every stream, and a learner's cluster may hold some
# that are dear to them. The first is brought up twice, as learners do.
CLUSTERS = jslab-test-gw0 jslab-test-gw1
test-kind: $(TOOLS) ## run contract, lessons and what only a cluster can show on live kind clusters (needs Docker, kind)
	@each() { printf '%s\n' $(CLUSTERS) | xargs -P 0 -I name env JSLAB_KIND_CLUSTER=name $(PY) -m jslab "$$@"; }; \
	trap 'each down --backend kind --yes' EXIT; trap 'exit 130' INT TERM; \
	each up --backend kind --offline || exit; \
	JSLAB_KIND_CLUSTER=$(firstword $(CLUSTERS)) $(PY) -m jslab up --backend kind --offline || exit; \
	JSLAB_KIND_CLUSTER=jslab-test $(PY) -m pytest -p tests.no_skips -n 2 --dist loadfile --durations=15 \
	  --backend kind tests/contract tests/course tests/kind $(ARGS)

lint: $(TOOLS) lint-notebooks ## check style, types, notebooks and the order of imports
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy --strict jslab
	@$(PY) -m pytest -q tests/unit/test_layers.py

lint-notebooks: $(TOOLS)
	@$(VENV)/bin/nbstripout --verify --keep-id --extra-keys "$(STRIPPED)" $(wildcard notebooks/*.ipynb)

bench: $(TOOLS) ## compare the bulk paths with plain nats-py: a table, and JSON in reports/ (ARGS=...)
	@$(PY) -m benchmarks $(ARGS)

setup: $(TOOLS) ## only set up .venv, with the test tools
	@echo "set up: make lab opens the course, $(VENV)/bin/jslab --help lists the rest"

constraints: ## write constraints.txt anew, with the newest versions that pyproject.toml allows
	@$(find-python) "$$python" -m venv build/constraints
	@build/constraints/bin/python -m pip install --quiet --editable '.[test,e2e]'
	@grep '^#' constraints.txt > build/constraints.txt
	@build/constraints/bin/python -m pip freeze --exclude-editable >> build/constraints.txt
	@mv build/constraints.txt constraints.txt && rm -rf build/constraints

clean: ## end what a hard kill left running, remove .venv and everything generated
	@if [ -x $(VENV)/bin/jslab ]; then $(VENV)/bin/jslab clean; fi
	@rm -rf $(VENV) build dist reports .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage .coverage.*
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Sets $$python to the first interpreter that is new enough, starts (a pyenv shim may not) and can make environments.
define find-python
python=; old=; \
for candidate in $(PYTHON) python3 python3.13 python3.12 python3.11 python3.14; do \
  "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue; \
  if "$$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then python=$$candidate; break; fi; \
  old=$$candidate; \
done; \
if [ -z "$$python" ] && [ -n "$$old" ]; then \
  echo "make: $$old cannot make environments (its venv or ensurepip is missing)" >&2; \
  echo "  do:   sudo apt-get install git make python3-venv" >&2; exit 2; \
fi; \
if [ -z "$$python" ]; then \
  echo "make: no Python 3.11 or newer on PATH (seen: $$(python3 --version 2>&1 | head -n 1))" >&2; \
  echo "  do:   install one, or name it: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 2; \
fi;
endef

$(PY):
	@$(find-python) echo "making $(VENV) with $$("$$python" --version)"; \
	"$$python" -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(LAB): $(SOURCES) | $(PY)
	@echo "installing the lab into $(VENV) (once; a minute or two)"
	@$(PIP) --editable .
	@touch $@

$(TOOLS): $(SOURCES) | $(PY)
	@echo "installing the lab and the test tools into $(VENV) (once; two minutes or so)"
	@$(PIP) --editable '.[test,e2e]'
	@touch $(LAB) $@
