python := .venv/bin/python
bin := .venv/bin

.PHONY: check format lint types imports unit proto

check: ## the one definition of clean; under a minute
	@$(MAKE) --no-print-directory -j2 format-check lint types imports proto-check unit

format: ## rewrite the sources
	$(bin)/ruff format -q . && $(bin)/ruff check -q --fix .

.PHONY: format-check proto-check
format-check:
	@$(bin)/ruff format -q --check .

lint:
	@$(bin)/ruff check -q .

types:
	@$(bin)/mypy

imports:
	@$(bin)/lint-imports --no-cache >.lint-imports.log 2>&1 || { cat .lint-imports.log; exit 1; }

proto-check:
	@protos/generate_proto.sh --check

unit:
	@$(python) -m pytest -q -n 2 tests/unit

proto:
	protos/generate_proto.sh

