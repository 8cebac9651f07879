python := .venv/bin/python
bin := .venv/bin

.PHONY: check static format format-check lint types imports proto proto-check unit

check: ## the one definition of clean; under a minute
	@$(MAKE) --no-print-directory -j2 static unit

static: format-check lint types imports proto-check

format: ## rewrite the sources
	@$(bin)/ruff format -q . && $(bin)/ruff check -q --fix .

format-check:
	@$(bin)/ruff format -q --check . || { echo "not formatted: run 'make format'" >&2; exit 1; }

lint:
	@$(bin)/ruff check -q .

types:
	@$(bin)/mypy

imports:
	@$(bin)/lint-imports --cache-dir .import_linter_cache >.import_linter.log 2>&1 || { cat .import_linter.log; exit 1; }

proto: ## regenerate the stubs
	@protos/generate_proto.sh

proto-check:
	@protos/generate_proto.sh --check

unit:
	@$(python) -m pytest -q tests/unit
